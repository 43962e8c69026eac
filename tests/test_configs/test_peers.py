"""Configs of MambaOut and of other networks beside MobileMamba."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.analysis.complexity import count_complexity

for library in ('mmdet', 'mmseg', 'mmpretrain', 'timm'):
    pytest.importorskip(library)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Peak stochastic depth as published (arXiv:2405.07992).
MAMBAOUT = {'femto': 0.025, 'tiny': 0.2, 'small': 0.4, 'base': 0.6}


def load(name):
    (path,) = CONFIGS.rglob(f'{name}.py')
    return Config.fromfile(path)


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(cfg.model))


@pytest.mark.parametrize('size', MAMBAOUT)
def test_recipe_of_mambaout(size):
    cfg = load(f'mambaout-{size}_8xb512-300e_in1k-224px')
    assert cfg.model.model_name == f'mambaout_{size}'
    assert cfg.model.drop_path_rate == MAMBAOUT[size]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 4e-3)
    assert optimizer.weight_decay == 0.05
    assert cfg.train_dataloader.batch_size * 8 == 4096
    assert cfg.auto_scale_lr.base_batch_size == 4096
    assert cfg.train_cfg.max_epochs == 300
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.end) == (20, 20, 300)
    pipeline = {t.type: t for t in cfg.train_dataloader.dataset.pipeline}
    augment = pipeline['RandAugment']
    assert (augment.magnitude_level, augment.magnitude_std) == (9, 0.5)
    assert pipeline['RandomErasing'].erase_prob == 0.25
    alphas = {a.type: a.alpha for a in cfg.model.train_cfg.augments}
    assert alphas == {'Mixup': 0.8, 'CutMix': 1.0}
    _, resize, crop, _ = cfg.val_dataloader.dataset.pipeline
    assert (resize.scale, crop.crop_size) == (224, 224)


def test_classifier_file_goes_into_a_detector(tmp_path):
    classifier = build(load('mambaout-femto_8xb512-300e_in1k-224px'))
    torch.save(
        dict(meta={}, state_dict=classifier.state_dict()), tmp_path / 'x.pth'
    )
    cfg = load('mask-rcnn_mambaout-tiny_fpn_1x_coco')
    backbone = cfg.model.backbone
    backbone.model_name = 'mambaout_femto'
    backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'x.pth')
    )
    model = MODELS.build(backbone)
    model.init_weights()
    whole = dict(classifier.model.named_parameters())
    for name, value in model.timm_model.named_parameters():
        assert torch.equal(value, whole[name.replace('stages_', 'stages.')])


def test_upernet_has_the_published_size():
    """54 M with the auxiliary head, 938 G at 512x2048 without it."""
    model = build(load('upernet_mambaout-tiny_8xb2-160k_ade20k-512x512'))
    cost = count_complexity(model, (512, 2048))
    assert cost.params / 1e6 == pytest.approx(54, abs=0.1)
    assert cost.macs / 1e9 == pytest.approx(938, abs=1)


@pytest.mark.parametrize(
    'name, backbone_strides',
    [
        ('mask-rcnn_mambaout-tiny_fpn_1x_coco', [4, 8, 16, 32]),
        ('mask-rcnn_timm-efficientvit-m5_fpn_1x_coco', [16, 32, 64]),
        ('mask-rcnn_timm-pvt-v2-b1_fpn_1x_coco', [4, 8, 16, 32]),
    ],
)
@torch.no_grad()
def test_pyramid_has_the_strides_the_head_expects(name, backbone_strides):
    model = build(load(name)).eval()
    backbone = getattr(model.backbone, 'backbone', model.backbone)
    assert backbone.out_strides == backbone_strides
    maps = model.extract_feat(torch.zeros(1, 3, 128, 64))
    generator = model.rpn_head.prior_generator
    strides = [stride[0] for stride in generator.strides]
    assert [128 // m.shape[2] for m in maps] == strides

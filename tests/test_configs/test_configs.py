"""Every config loads, builds and has the published form and recipe."""

from fnmatch import fnmatch
from functools import cache
from math import cos, pi
from pathlib import Path

import pytest
import torch
import yaml
from golden import official_keys, to_published
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from pytest import approx

from mmmobilemamba.apis.strides import check_strides
from mmmobilemamba.checkpoints.key_map import from_published, is_haar_filter

for library in ('mmdet', 'mmseg', 'mmpretrain', 'timm'):
    pytest.importorskip(library)

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    path.stem: path
    for path in sorted(ROOT.glob('configs/**/*.py'))
    if path.parent.name != '_base_'
}
METAFILES = sorted(ROOT.glob('configs/**/metafile.yml'))

# Config -> name in official_keys.json.
DENSE = {
    'mask-rcnn_mobilemamba-b1_fpn_1x_coco': 'mask_rcnn',
    'retinanet_mobilemamba-b1_fpn_1x_coco': 'retinanet',
    'ssdlite_mobilemamba-b1_8xb24-600e_coco-320px': 'ssdlite_320',
    'ssdlite_mobilemamba-b1_8xb24-600e_coco-512px': 'ssdlite_512',
    'fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512': 'sem_fpn',
    'deeplabv3_mobilemamba-b4_4xb8-80k_ade20k-512x512': 'deeplabv3',
    'pspnet_mobilemamba-b4_4xb8-80k_ade20k-512x512': 'pspnet',
}
SIDES = dict(t2=192, t4=192, s6=224, b1=256, b2=384, b4=512)
CLASSIFIERS = {
    f'mobilemamba-{arch}_8xb128-300e_in1k-{px}px': 'b1' if px > 224 else arch
    for arch, px in SIDES.items()
}
STRIDES = {
    'mask-rcnn_mobilemamba-b1_fpn_1x_coco': [4, 8, 16, 32, 64],
    'faster-rcnn_mobilemamba-b1_fpn_1x_coco': [4, 8, 16, 32, 64],
    'retinanet_mobilemamba-b1_fpn_1x_coco': [8, 16, 32, 64, 128],
    'fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512': [16, 32, 64],
    'mask-rcnn_mambaout-tiny_fpn_1x_coco': [4, 8, 16, 32, 64],
    'mask-rcnn_timm-efficientvit-m5_fpn_1x_coco': [4, 8, 16, 32, 64],
    'mask-rcnn_timm-pvt-v2-b1_fpn_1x_coco': [4, 8, 16, 32, 64],
}


@cache
def load(name: str) -> Config:
    return Config.fromfile(CONFIGS[name])


def named(pattern: str) -> list[str]:
    return [name for name in CONFIGS if fnmatch(name, pattern)]


def build(name: str) -> torch.nn.Module:
    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(cfg.model))


def in_our_names(keys: dict) -> dict:
    """Return published shapes by our names, the Haar filters left out."""
    found = {k: v for k, v in keys.items() if not is_haar_filter(k)}
    return {from_published(k): shape for k, shape in found.items()}


def options(model, cfg, key) -> dict:
    """Return an option of the optimizer for every parameter by name."""
    groups = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {p: name for name, p in model.named_parameters()}
    return {
        names[p]: group[key]
        for group in groups.optimizer.param_groups
        for p in group['params']
    }


@pytest.mark.parametrize('name', DENSE)
def test_parameters_decay_and_norms_of_dense_models(name):
    """No decay where the published name has "norm"; detectors keep the
    backbone's BatchNorms still, segmentors not."""
    model, cfg = build(name), load(name)
    keys = official_keys()['downstream_parameters'][DENSE[name]]
    ours = {k: list(p.shape) for k, p in model.named_parameters()}
    assert ours == in_our_names(keys)
    decay = options(model, cfg, 'weight_decay')
    trained = {k for k, p in model.named_parameters() if p.requires_grad}
    assert set(decay) == trained
    for key, value in decay.items():
        assert value == (0 if 'norm' in to_published(key) else 0.05), key
    assert 0 in decay.values()
    bn = model.train().backbone.stages[0].blocks[0].dw0.bn
    assert bn.training is (cfg.default_scope != 'mmdet')


@pytest.mark.parametrize('name', STRIDES)
@torch.no_grad()
def test_maps_have_the_strides_the_head_expects(name):
    model = build(name).eval()
    maps = model.extract_feat(torch.zeros(1, 3, 128, 256))
    assert [256 // m.shape[3] for m in maps] == STRIDES[name]
    if load(name).default_scope == 'mmseg':
        assert model.decode_head.feature_strides == STRIDES[name]
    check_strides(model)


@pytest.mark.parametrize('px', [320, 512])
@torch.no_grad()
def test_ssdlite_levels_anchors_and_data(px):
    name = f'ssdlite_mobilemamba-b1_8xb24-600e_coco-{px}px'
    model = build(name).eval()
    maps = model.extract_feat(torch.zeros(1, 3, px, px))
    assert [m.shape[1] for m in maps] == [200, 376, 512, 256, 256, 128]
    assert [m.shape[3] for m in maps[:3]] == [px // 16, px // 32, -(-px // 64)]
    generator = model.bbox_head.prior_generator
    assert [s[0] for s in generator.strides] == [16, 32, 64, 107, 160, 320]
    assert generator.num_base_priors == [6] * 6
    edges = [48, 100, 150, 202, 253, 304, 320]
    for anchors, small, large in zip(generator.base_anchors, edges, edges[1:]):
        sizes = (anchors[:, 2:] - anchors[:, :2])[:2, 0].tolist()
        assert sizes == approx([small, (small * large) ** 0.5], abs=1e-3)
    cfg = load(name)
    data = cfg.train_dataloader.dataset
    assert (data.type, data.times) == ('RepeatDataset', 5)
    for dataset in (data.dataset, cfg.val_dataloader.dataset):
        (scale,) = [t.scale for t in dataset.pipeline if t.type == 'Resize']
        assert scale == (px, px)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_state_and_decay_of_classifiers(name):
    """No decay for what is 1-D in the published file or a bias."""
    model = build(name)
    keys = official_keys()['classification_state_dict'][CLASSIFIERS[name]]
    ours = {k: list(v.shape) for k, v in model.state_dict().items()}
    ours = {k.removeprefix('backbone.'): v for k, v in ours.items()}
    assert ours == in_our_names(keys)
    decayed = set()
    for key, decay in options(model, load(name), 'weight_decay').items():
        key = to_published(key.removeprefix('backbone.'))
        none = len(keys[key]) == 1 or key.endswith('.bias')
        assert decay == (0 if none else 0.05), key
        decayed |= {key} if decay else set()
    for part in ('A_logs', 'dt_projs_bias', 'base_scale', 'wavelet_scale'):
        assert any(part in key for key in decayed), part


# Configs by name -> images of a process, images that the rate is for,
# and norm that gradients are clipped to, as published.
RECIPES = {
    'mask-rcnn_*_1x_*': (4, 16, 0.1),
    'retinanet_*_1x_coco': (4, 16, 0.1),
    'ssdlite_*': (24, 192, 0.1),
    'fpn_*-160k_*': (8, 32, None),
    'segformer_*': (8, 32, None),
    '*_4xb8-80k_*': (8, 32, 0.1),
    'mobilemamba-*_8xb128-*': (128, 1024, 5),
    'mambaout-*': (512, 4096, None),
}


@pytest.mark.parametrize('pattern', RECIPES)
def test_batches_and_gradients(pattern):
    for cfg in map(load, named(pattern)):
        clip = cfg.optim_wrapper.get('clip_grad') or {}
        size, auto = cfg.train_dataloader.batch_size, cfg.auto_scale_lr
        found = (size, auto.base_batch_size, clip.get('max_norm'))
        assert found == RECIPES[pattern]
        assert not auto.get('enable')


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_recipe_of_classifiers(name):
    cfg, px = load(name), int(name.rsplit('-', 1)[1][:-2])
    optimizer, ema = cfg.optim_wrapper.optimizer, cfg.custom_hooks[0]
    assert (optimizer.type, tuple(optimizer.betas)) == ('AdamW', (0.9, 0.999))
    assert (ema.type, ema.momentum) == ('EMAHook', 2e-4)
    alphas = {a.type: a.alpha for a in cfg.model.train_cfg.augments}
    assert alphas == {'Mixup': 0.8, 'CutMix': 1.0}
    _, crop, _, augment, erasing, *_ = cfg.train_dataloader.dataset.pipeline
    assert [t[0].scale for t in crop.transforms] == [px, px]
    assert augment.policies == 'timm_increasing'
    assert (augment.magnitude_level, augment.magnitude_std) == (9, 0.5)
    assert (erasing.erase_prob, erasing.mode) == (0.25, 'rand')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        _, resize, crop, _ = loader.dataset.pipeline
        assert (resize.scale, crop.crop_size) == (int(px / 0.875), px)
        assert (resize.edge, resize.interpolation) == ('short', 'bicubic')


@pytest.mark.parametrize('name', [n for n in CONFIGS if 'distill' in n])
def test_distilled_recipe(name):
    cfg, plain = load(name), load(name.replace('distill-1000e', '300e'))
    teacher = dict(type='TimmClassifier', model_name='tresnet_v2_l')
    recipe = dict(teacher=teacher, teacher_size=224, distill_mode='soft')
    recipe.update(distill_weight=5.0, temperature=1.0)
    assert dict(cfg.model, **recipe) == dict(cfg.model)
    for key in ('backbone', 'neck', 'head', 'train_cfg'):
        assert cfg.model[key] == plain.model[key], key
    for key in ('train_dataloader', 'optim_wrapper', 'custom_hooks'):
        assert cfg[key] == plain[key], key


# Peak stochastic depth as published (arXiv:2405.07992).
DROP_PATH = dict(femto=0.025, tiny=0.2, small=0.4, base=0.6)


@pytest.mark.parametrize('size', DROP_PATH)
def test_recipe_of_mambaout(size):
    cfg = load(f'mambaout-{size}_8xb512-300e_in1k-224px')
    model, lr = cfg.model, cfg.optim_wrapper.optimizer.lr
    assert model.model_name == f'mambaout_{size}' and lr == 4e-3
    assert model.drop_path_rate == DROP_PATH[size]
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.end) == (20, 20, 300)


def learning_rates(name: str, epoch_length: int) -> list:
    """Return the learning rate at the start of every iteration."""
    cfg = load(name)
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = []
    for scheduler in map(dict, cfg.param_scheduler):
        make = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        if scheduler.pop('convert_to_iter_based', False):
            scheduler['epoch_length'] = epoch_length
            make = make.build_iter_from_epoch
        schedulers.append(make(optimizer, **scheduler))
    train, rates = cfg.train_cfg, []
    optimizer.step()
    for i in range(train.get('max_iters') or train.max_epochs * epoch_length):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            if not scheduler.by_epoch or (i + 1) % epoch_length == 0:
                scheduler.step()
    return rates


DETECTION = {0: 1e-5, 250: approx(0.5, rel=0.01), 499: 1}
MASK_RCNN = {**DETECTION, 1200: 1, 1800: 0.5, 2200: (1 + cos(pi * 5 / 6)) / 2}
SSDLITE = {**DETECTION, 1200: 1, 1800: 0.5, 2380: (1 + cos(pi * 59 / 60)) / 2}
END, HALF = approx(0, abs=1e-6), approx(0.5, rel=1e-3)
LONG = {0: 1e-6, 1499: 1, 80000: 1, 120000: HALF, 159999: END}
SHORT = {0: 1e-5, 499: 1, 40000: 1, 60000: HALF, 79999: END}
# Between the peak and a hundredth of it, at the middle and at the end.
MIDDLE, LEAST = approx(0.505, rel=1e-3), approx(0.01, rel=1e-3)
PLAIN = {0: 1e-3, 200: 1, 1600: MIDDLE, 2999: LEAST}
DISTILL = {0: 1e-3, 200: 1, 5100: MIDDLE, 9999: LEAST}


@pytest.mark.parametrize(
    'pattern, length, peak, wanted',
    [
        ('mask-rcnn_mobilemamba-*_1x_*', 200, 2e-4, MASK_RCNN),
        ('retinanet_mobilemamba-*_1x_*', 200, 2e-4, MASK_RCNN),
        ('ssdlite_*', 20, 2.4e-3, SSDLITE),
        ('fpn_*-160k_*', 1, 1.2e-4, LONG),
        ('*_4xb8-80k_*', 1, 1.2e-4, SHORT),
        ('mobilemamba-b1_8xb128-300e_*', 10, 3e-3, PLAIN),
        ('mobilemamba-b1_8xb128-distill-*', 10, 3e-3, DISTILL),
    ],
)
def test_schedule(pattern, length, peak, wanted):
    for name in named(pattern):
        rates = [rate / peak for rate in learning_rates(name, length)]
        for iteration, factor in wanted.items():
            exact = isinstance(factor, float | int)
            assert rates[iteration] == (approx(factor) if exact else factor)
        assert len(rates) // length == -(-(max(wanted) + 1) // length)
        if 'distill' in name:  # by iteration, not by epoch
            assert rates[5100] > rates[5101]


def test_head_of_sem_fpn_learns_ten_times_faster():
    name = 'fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512'
    for key, lr in options(build(name), load(name), 'lr').items():
        factor = 10 if key.startswith('decode_head.') else 1
        assert lr == approx(factor * 1.2e-4), key


@pytest.mark.parametrize('name', CONFIGS)
def test_config_builds(name):
    """Model and data pipelines of every config build; nothing is fetched."""
    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        if name not in {**DENSE, **CLASSIFIERS, **STRIDES}:
            MODELS.build(cfg.model)
        for loader in ('train_dataloader', 'val_dataloader'):
            dataset = cfg[loader].dataset
            Compose(dataset.get('dataset', dataset).pipeline)
    assert cfg.model.get('pretrained') is None
    assert 'init_cfg' not in cfg.model.get('backbone', {})


def test_names_are_unique_and_the_index_lists_every_metafile():
    """mim finds a config by its base name alone."""
    paths = list(ROOT.glob('configs/**/*.py'))
    assert len({path.stem for path in paths}) == len(paths)
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert [ROOT / path for path in index['Import']] == METAFILES


@pytest.mark.parametrize('path', METAFILES, ids=lambda p: p.parent.name)
def test_metafile(path):
    content = yaml.safe_load(path.read_text())
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()
    collections = [c['Name'] for c in content['Collections']]
    listed = {}
    for model in content['Models']:
        assert model['In Collection'] in collections
        listed[model['Name']] = ROOT / model['Config']
        # Every number of a table has to say whose it is.
        published = 'published (arXiv:' in model['Metadata']['Notes']
        assert published == ('Results' in model), model['Name']
    assert listed == {c.stem: c for c in path.parent.glob('*.py')}

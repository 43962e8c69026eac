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
CLASSIFIERS = {
    'mobilemamba-t2_8xb128-300e_in1k-192px': 't2',
    'mobilemamba-t4_8xb128-300e_in1k-192px': 't4',
    'mobilemamba-s6_8xb128-300e_in1k-224px': 's6',
    'mobilemamba-b1_8xb128-300e_in1k-256px': 'b1',
    'mobilemamba-b2_8xb128-300e_in1k-384px': 'b1',
    'mobilemamba-b4_8xb128-300e_in1k-512px': 'b1',
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


def build(name: str) -> torch.nn.Module:
    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(cfg.model))


@pytest.fixture(scope='module', params=DENSE)
def dense(request):
    """Return a published dense config's name and model, built once."""
    return request.param, build(request.param)


@pytest.fixture(scope='module', params=CLASSIFIERS)
def classifier(request):
    """Return a published classifier's name and model, built once."""
    return request.param, build(request.param)


def in_our_names(keys: dict) -> dict:
    """Return published shapes by our names, the Haar filters left out."""
    found = {k: v for k, v in keys.items() if not is_haar_filter(k)}
    return {from_published(k): shape for k, shape in found.items()}


def decays(model, cfg) -> dict:
    """Return the weight decay of every trained parameter by name."""
    groups = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {p: name for name, p in model.named_parameters()}
    return {
        names[p]: group['weight_decay']
        for group in groups.optimizer.param_groups
        for p in group['params']
    }


def test_parameters_are_the_published_ones(dense):
    name, model = dense
    keys = official_keys()['downstream_parameters'][DENSE[name]]
    ours = {k: list(p.shape) for k, p in model.named_parameters()}
    assert ours == in_our_names(keys)


def test_no_decay_where_the_published_name_has_norm(dense):
    name, model = dense
    decay = decays(model, load(name))
    trained = {k for k, p in model.named_parameters() if p.requires_grad}
    assert set(decay) == trained
    for key, value in decay.items():
        assert value == (0 if 'norm' in to_published(key) else 0.05), key
    assert 0 in decay.values()


def test_norm_mode_in_training(dense):
    """Detectors keep the backbone's BatchNorms still, segmentors not."""
    name, model = dense
    bn = model.train().backbone.stages[0].blocks[0].dw0.bn
    assert bn.training is (load(name).default_scope != 'mmdet')
    model.eval()


@pytest.mark.parametrize('name', STRIDES)
@torch.no_grad()
def test_maps_have_the_strides_the_head_expects(name):
    model = build(name).eval()
    maps = model.extract_feat(torch.zeros(1, 3, 128, 256))
    assert [256 // m.shape[3] for m in maps] == STRIDES[name]
    assert [128 // m.shape[2] for m in maps] == STRIDES[name]
    if load(name).default_scope == 'mmseg':
        assert model.decode_head.feature_strides == STRIDES[name]
        return
    head = getattr(model, 'rpn_head', None) or model.bbox_head
    strides = [stride[0] for stride in head.prior_generator.strides]
    assert strides == STRIDES[name]
    if hasattr(model, 'rpn_head'):
        extractor = model.roi_head.bbox_roi_extractor
        assert extractor.featmap_strides == STRIDES[name][:4]


def test_retinanet_anchors():
    head = build('retinanet_mobilemamba-b1_fpn_1x_coco').bbox_head
    generator = head.prior_generator
    assert generator.num_base_priors == [9] * 5
    assert generator.octave_base_scale == 4
    # The middle ratio's anchor of the first scale is 4 strides wide.
    assert generator.base_anchors[0][3].tolist() == [-16, -16, 16, 16]


@pytest.mark.parametrize('px', [320, 512])
@torch.no_grad()
def test_ssdlite_levels_anchors_and_data(px):
    name = f'ssdlite_mobilemamba-b1_8xb24-600e_coco-{px}px'
    model = build(name).eval()
    maps = model.extract_feat(torch.zeros(1, 3, px, px))
    assert [m.shape[1] for m in maps] == [200, 376, 512, 256, 256, 128]
    assert [m.shape[3] for m in maps[:3]] == [
        -(-px // s) for s in (16, 32, 64)
    ]
    generator = model.bbox_head.prior_generator
    assert [s[0] for s in generator.strides] == [16, 32, 64, 107, 160, 320]
    assert generator.num_base_priors == [6] * 6
    edges = [48, 100, 150, 202, 253, 304, 320]
    for anchors, small, large in zip(
        generator.base_anchors, edges[:-1], edges[1:], strict=True
    ):
        sizes = (anchors[:, 2:] - anchors[:, :2])[:2, 0]
        expected = [small, (small * large) ** 0.5]
        assert sizes.tolist() == approx(expected, abs=1e-3)
    cfg = load(name)
    data = cfg.train_dataloader.dataset
    assert (data.type, data.times) == ('RepeatDataset', 5)
    for dataset in (data.dataset, cfg.val_dataloader.dataset):
        (scale,) = [t.scale for t in dataset.pipeline if t.type == 'Resize']
        assert scale == (px, px)


def test_state_of_classifiers_is_the_published_one(classifier):
    name, model = classifier
    keys = official_keys()['classification_state_dict'][CLASSIFIERS[name]]
    ours = {
        k.removeprefix('backbone.'): list(v.shape)
        for k, v in model.state_dict().items()
    }
    assert ours == in_our_names(keys)


def test_decay_of_classifiers(classifier):
    """No decay for what is 1-D in the published file or a bias."""
    name, model = classifier
    keys = official_keys()['classification_state_dict'][CLASSIFIERS[name]]
    decayed = set()
    for ours, decay in decays(model, load(name)).items():
        key = to_published(ours.removeprefix('backbone.'))
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
    names = [name for name in CONFIGS if fnmatch(name, pattern)]
    assert names
    for cfg in map(load, names):
        clip = cfg.optim_wrapper.get('clip_grad') or {}
        size, auto = cfg.train_dataloader.batch_size, cfg.auto_scale_lr
        found = (size, auto.base_batch_size, clip.get('max_norm'))
        assert found == RECIPES[pattern]
        assert not auto.get('enable')


def test_recipe_of_classifiers(classifier):
    name, _ = classifier
    cfg, px = load(name), int(name.rsplit('-', 1)[1][:-2])
    optimizer, ema = cfg.optim_wrapper.optimizer, cfg.custom_hooks[0]
    assert optimizer.type == 'AdamW'
    assert tuple(optimizer.betas) == (0.9, 0.999)
    assert (ema.type, ema.momentum) == ('EMAHook', 2e-4)
    # Every image once an epoch: no repeated augmentation.
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    alphas = {a.type: a.alpha for a in cfg.model.train_cfg.augments}
    assert alphas == {'Mixup': 0.8, 'CutMix': 1.0}
    _, crop, _, augment, erasing, *_ = cfg.train_dataloader.dataset.pipeline
    assert [t[0].scale for t in crop.transforms] == [px, px]
    assert augment.policies == 'timm_increasing'
    assert (augment.magnitude_level, augment.magnitude_std) == (9, 0.5)
    assert (erasing.erase_prob, erasing.mode) == (0.25, 'rand')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        _, resize, crop, _ = loader.dataset.pipeline
        assert (resize.scale, resize.edge) == (int(px / 0.875), 'short')
        assert resize.interpolation == 'bicubic'
        assert crop.crop_size == px


@pytest.mark.parametrize('name', [n for n in CONFIGS if 'distill' in n])
def test_distilled_recipe(name):
    """What the plain recipe has, and the published teacher."""
    cfg, plain = load(name), load(name.replace('distill-1000e', '300e'))
    model = cfg.model
    assert model.type == 'mmmobilemamba.DistilledClassifier'
    teacher = dict(type='TimmClassifier', model_name='tresnet_v2_l')
    assert model.teacher == teacher
    assert (model.teacher_size, model.distill_mode) == (224, 'soft')
    assert (model.distill_weight, model.temperature) == (5.0, 1.0)
    for key in ('backbone', 'neck', 'head', 'train_cfg'):
        assert model[key] == plain.model[key], key
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper'):
        assert cfg[key] == plain[key], key
    assert cfg.custom_hooks == plain.custom_hooks


# Peak stochastic depth as published (arXiv:2405.07992).
@pytest.mark.parametrize(
    'size, rate',
    [('femto', 0.025), ('tiny', 0.2), ('small', 0.4), ('base', 0.6)],
)
def test_recipe_of_mambaout(size, rate):
    cfg = load(f'mambaout-{size}_8xb512-300e_in1k-224px')
    assert cfg.model.model_name == f'mambaout_{size}'
    assert cfg.model.drop_path_rate == rate
    assert cfg.optim_wrapper.optimizer.lr == 4e-3
    warmup, cosine = cfg.param_scheduler
    assert (warmup.end, cosine.begin, cosine.end) == (20, 20, 300)


def learning_rates(name: str, epoch_length: int) -> list:
    """Return the learning rate at the start of every iteration."""
    cfg = load(name)
    lr = cfg.optim_wrapper.optimizer.lr
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=lr)
    schedulers = []
    for scheduler in map(dict, cfg.param_scheduler):
        make = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        if scheduler.pop('convert_to_iter_based', False):
            scheduler['epoch_length'] = epoch_length
            make = make.build_iter_from_epoch
        schedulers.append(make(optimizer, **scheduler))
    train = cfg.train_cfg
    iters = train.get('max_iters') or train.max_epochs * epoch_length
    optimizer.step()
    rates = []
    for i in range(iters):
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


@pytest.mark.parametrize(
    'pattern, length, peak, wanted',
    [
        ('mask-rcnn_mobilemamba-*_1x_*', 200, 2e-4, MASK_RCNN),
        ('retinanet_mobilemamba-*_1x_*', 200, 2e-4, MASK_RCNN),
        ('ssdlite_*', 20, 2.4e-3, SSDLITE),
        ('fpn_*-160k_*', 1, 1.2e-4, LONG),
        ('*_4xb8-80k_*', 1, 1.2e-4, SHORT),
        (
            *('mobilemamba-b1_8xb128-300e_*', 10, 3e-3),
            {0: 1e-3, 200: 1, 1600: MIDDLE, 2999: LEAST},
        ),
        (
            *('mobilemamba-b1_8xb128-distill-*', 10, 3e-3),
            {0: 1e-3, 200: 1, 5100: MIDDLE, 9999: LEAST},
        ),
    ],
)
def test_schedule(pattern, length, peak, wanted):
    for name in CONFIGS:
        if not fnmatch(name, pattern):
            continue
        rates = [rate / peak for rate in learning_rates(name, length)]
        for iteration, factor in wanted.items():
            exact = isinstance(factor, float | int)
            assert rates[iteration] == (approx(factor) if exact else factor)
        assert len(rates) // length == -(-(max(wanted) + 1) // length)
        if 'distill' in name:  # by iteration, not by epoch
            assert rates[5100] > rates[5101]


def test_head_of_sem_fpn_learns_ten_times_faster():
    name = 'fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512'
    model = build(name)
    wrapper = build_optim_wrapper(model, load(name).optim_wrapper)
    names = {p: k for k, p in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        (key,) = map(names.get, group['params'])
        factor = 10 if key.startswith('decode_head.') else 1
        assert group['lr'] == approx(factor * 1.2e-4), key


def test_upernet_mambaout_has_the_published_size():
    model = build('upernet_mambaout-tiny_8xb2-160k_ade20k-512x512')
    count = sum(p.numel() for p in model.parameters())
    assert count / 1e6 == approx(54, abs=0.1)


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
    collections = [c['Name'] for c in content['Collections']]
    for collection in content['Collections']:
        assert (ROOT / collection['README']).is_file()
    listed = {}
    for model in content['Models']:
        assert model['In Collection'] in collections
        listed[model['Name']] = ROOT / model['Config']
        # Every number of a table has to say whose it is.
        published = 'published (arXiv:' in model['Metadata']['Notes']
        assert published == ('Results' in model), model['Name']
    configs = path.parent.glob('*.py')
    assert listed == {config.stem: config for config in configs}

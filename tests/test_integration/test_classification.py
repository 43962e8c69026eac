"""The ImageNet recipes through the Runner: train, evaluate, resume."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

pytest.importorskip('mmpretrain')
timm = pytest.importorskip('timm')

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES  # noqa: E402

from mmmobilemamba.checkpoints.safe_loading import (  # noqa: E402
    allow_mmengine_checkpoints,
)
from mmmobilemamba.datasets import make_scene  # noqa: E402

CONFIGS = Path(__file__).parents[2] / 'configs/cls/mobilemamba'
DISTILLED = 'mobilemamba-t2_8xb128-distill-1000e_in1k-192px'
RECIPES = ['mobilemamba-t2_8xb128-300e_in1k-192px', DISTILLED]
SIDE = 64
IMAGES = 4


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    root = tmp_path_factory.mktemp('imagenet')
    for split in ('train', 'val'):
        for label in range(len(IMAGENET_CATEGORIES)):
            (root / split / f'n{label:04}').mkdir(parents=True)
        for index in range(IMAGES):
            image, _, _ = make_scene(index, size=SIDE + 16)
            path = root / split / f'n{index:04}' / f'{index}.JPEG'
            Image.fromarray(image).save(path)
    return root


@pytest.fixture(scope='module')
def teacher_file(tmp_path_factory):
    """Save a small timm model that knows as many classes."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(timm.create_model('test_resnet').state_dict(), path)
    return str(path)


class Watch(Hook):
    """Keep losses, metrics and the head that was evaluated."""

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.losses = {k: float(v) for k, v in outputs.items()}

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        head = runner.model.head.state_dict()
        self.evaluated = {f'head.{k}': v.clone() for k, v in head.items()}

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


def load(name, work_dir, data, teacher_file):
    """Read a recipe and make all of it small."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.work_dir = str(work_dir)
    cfg.visualizer.vis_backends = None
    cfg.randomness = dict(seed=0)
    cfg.default_hooks.logger.interval = 1
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.update(
            batch_size=IMAGES // 2,
            num_workers=0,
            persistent_workers=False,
            collate_fn=dict(type='default_collate'),
        )
        loader.dataset.data_root = str(data)
    crops, *_ = (
        step.transforms
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type == 'RandomChoice'
    )
    for (crop,) in crops:
        crop.scale = SIDE
    cfg.model.backbone.arch = dict(channels=(32, 40, 48), depths=(1, 1, 1))
    cfg.model.head.in_channels = 48
    _, resize, crop, _ = cfg.val_dataloader.dataset.pipeline
    resize.scale = int(SIDE / 0.875)
    crop.crop_size = SIDE
    cfg.test_dataloader = cfg.val_dataloader
    cfg.train_cfg.max_epochs = 1
    if 'distill' in name:
        cfg.model.teacher = dict(
            type='TimmClassifier', model_name='test_resnet'
        )
        cfg.model.teacher_ckpt = teacher_file
        cfg.model.teacher_size = 32
    return cfg


def train(cfg):
    watch = Watch()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(watch)
    runner.train()
    return runner, watch


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_trains_evaluates_and_resumes(
    name, imagenet, teacher_file, tmp_path
):
    allow_mmengine_checkpoints()
    args = (name, tmp_path, imagenet, teacher_file)
    _, watch = train(load(*args))
    assert all(map(math.isfinite, watch.losses.values()))
    assert ('loss_distill' in watch.losses) == ('distill' in name)
    assert set(watch.metrics) == {'accuracy/top1', 'accuracy/top5'}

    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert not [key for key in saved['state_dict'] if 'teacher' in key]
    # Validation measures the moving average.
    for key, value in watch.evaluated.items():
        assert torch.equal(value, saved['state_dict'][key]), key
    key = 'head.fc.weight'
    trained = saved['ema_state_dict'][f'module.{key}']
    assert not torch.equal(watch.evaluated[key], trained)

    cfg = load(*args)
    cfg.resume, cfg.train_cfg.max_epochs = True, 2
    runner, watch = train(cfg)
    assert runner.iter == IMAGES
    cfg = load(*args)
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    if 'distill' in name:
        cfg.model.teacher_ckpt = None  # testing needs no teacher
    assert Runner.from_cfg(cfg).test() == watch.metrics


def test_channels_last_from_folders(imagenet, teacher_file, tmp_path):
    """The layout holds everywhere, and the losses are the same."""
    losses = {}
    for channels_last in (False, True):
        folder = tmp_path / str(channels_last)
        cfg = load(DISTILLED, folder, imagenet, teacher_file)
        cfg.default_hooks.checkpoint = None
        if channels_last:
            hook = dict(type='mmmobilemamba.ChannelsLastHook')
            cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), hook]
        runner, watch = train(cfg)
        losses[channels_last] = watch.losses
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
    layout = dict(memory_format=torch.channels_last)
    (ema,) = (h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    for model in (runner.model, ema.ema_model.module):
        for name, parameter in model.named_parameters():
            if parameter.dim() == 4:
                assert parameter.is_contiguous(**layout), name
    batch = next(iter(runner.train_dataloader))
    inputs = runner.model.data_preprocessor(batch, True)['inputs']
    assert inputs.is_contiguous(**layout) and not inputs.is_contiguous()

"""The ImageNet recipes through the Runner: train, evaluate, resume."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

pytest.importorskip('mmpretrain')
timm = pytest.importorskip('timm')

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES  # noqa: E402

from mmmobilemamba.checkpoints import safe_loading  # noqa: E402
from mmmobilemamba.datasets import make_scene  # noqa: E402

DISTILLED = 'mobilemamba-t2_8xb128-distill-1000e_in1k-192px'
RECIPES = ['mobilemamba-t2_8xb128-300e_in1k-192px', DISTILLED]
SIDE = 64
IMAGES = 4


@pytest.fixture(scope='module')
def load(repo, tmp_path_factory):
    """Give a function that reads a recipe and makes all of it small."""
    root = tmp_path_factory.mktemp('imagenet')
    for split in ('train', 'val'):
        for label in range(len(IMAGENET_CATEGORIES)):
            (root / split / f'n{label:04}').mkdir(parents=True)
        for index in range(IMAGES):
            image, _, _ = make_scene(index, size=SIDE + 16)
            path = root / split / f'n{index:04}' / f'{index}.JPEG'
            Image.fromarray(image).save(path)
    # A small timm model that knows as many classes.
    teacher = root / 'teacher.pth'
    torch.save(timm.create_model('test_resnet').state_dict(), teacher)

    def call(name, work_dir, epochs=1):
        cfg = Config.fromfile(repo / f'configs/cls/mobilemamba/{name}.py')
        cfg.work_dir, cfg.randomness = str(work_dir), dict(seed=0)
        cfg.visualizer.vis_backends = None
        for split in ('train', 'val'):
            loader = cfg[f'{split}_dataloader']
            loader.update(
                batch_size=IMAGES // 2,
                num_workers=0,
                persistent_workers=False,
                collate_fn=dict(type='default_collate'),
            )
            loader.dataset.data_root = str(root)
        crops, *_ = (
            step.transforms
            for step in cfg.train_dataloader.dataset.pipeline
            if step.type == 'RandomChoice'
        )
        for (crop,) in crops:
            crop.scale = SIDE
        _, resize, crop, _ = cfg.val_dataloader.dataset.pipeline
        resize.scale, crop.crop_size = int(SIDE / 0.875), SIDE
        cfg.test_dataloader = cfg.val_dataloader
        arch = dict(channels=(32, 40, 48), depths=(1, 1, 1))
        cfg.model.backbone.arch, cfg.model.head.in_channels = arch, 48
        cfg.train_cfg.max_epochs = epochs
        if name == DISTILLED:
            cfg.model.update(
                teacher=dict(type='TimmClassifier', model_name='test_resnet'),
                teacher_ckpt=str(teacher),
                teacher_size=32,
            )
        return cfg

    return call


def train(cfg):
    """Return the runner, and what it logged last."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    return runner, {name: x.current() for name, x in scalars.items()}


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_trains_evaluates_and_resumes(name, load, tmp_path):
    safe_loading.allow_mmengine_checkpoints()
    _, logged = train(load(name, tmp_path))
    assert math.isfinite(logged['train/loss'])
    assert ('train/loss_distill' in logged) == (name == DISTILLED)

    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert not [key for key in saved['state_dict'] if 'teacher' in key]
    # What evaluation takes is the moving average.
    key = 'head.fc.weight'
    trained = saved['ema_state_dict'][f'module.{key}']
    assert not torch.equal(saved['state_dict'][key], trained)

    cfg = load(name, tmp_path, epochs=2)
    cfg.resume = True
    runner, logged = train(cfg)
    assert runner.iter == IMAGES
    cfg = load(name, tmp_path)
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    if name == DISTILLED:
        cfg.model.teacher_ckpt = None  # testing needs no teacher
    metrics = Runner.from_cfg(cfg).test()
    assert metrics.keys() == {'accuracy/top1', 'accuracy/top5'}
    for key, value in metrics.items():
        assert value == logged[f'val/{key}']

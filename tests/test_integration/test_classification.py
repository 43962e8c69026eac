"""The ImageNet recipes through the Runner: train, evaluate, resume."""

import shutil
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import distributed

pytest.importorskip('mmpretrain')
timm = pytest.importorskip('timm')
pytest.importorskip('lmdb')

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402

from mmmobilemamba.checkpoints.safe_loading import (  # noqa: E402
    allow_mmengine_checkpoints,
)
from mmmobilemamba.datasets import make_scene  # noqa: E402
from mmmobilemamba.datasets.image_lmdb import (  # noqa: E402
    list_folders,
    write_image_lmdb,
)
from mmmobilemamba.engine import CPUDistributedDataParallel  # noqa: E402

CONFIGS = Path(__file__).parents[2] / 'configs/cls/mobilemamba'
DISTILLED = 'mobilemamba-t2_8xb128-distill-1000e_in1k-192px'
# A plain recipe, one with a teacher, and the one that reads an LMDB.
RECIPES = ['mobilemamba-t2_8xb128-300e_in1k-192px', DISTILLED] + sorted(
    path.stem for path in CONFIGS.glob('*lmdb*.py')
)
SIDE = 64
IMAGES = 4


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """Make ImageNet three times: in folders, by lists, and packed."""
    root = tmp_path_factory.mktemp('imagenet')
    for split in ('train', 'val'):
        for label in range(len(IMAGENET_CATEGORIES)):
            (root / 'folders' / split / f'n{label:04}').mkdir(parents=True)
        for index in range(IMAGES):
            path = root / 'folders' / split / f'n{index:04}' / f'{index}.JPEG'
            scene = make_scene(index, size=SIDE + 16, max_object=64)
            done, data = cv2.imencode('.jpg', scene.image[..., ::-1])
            assert done
            path.write_bytes(data.tobytes())
        samples = list_folders(str(root / 'folders' / split))
        assert samples[-1] == ('n0003/3.JPEG', 3)
        write_image_lmdb(
            str(root / 'folders' / split), samples, str(root / 'lmdb'), split
        )
        # The same pictures in one folder, which lists give their labels.
        flat = root / 'lists' / split
        flat.mkdir(parents=True)
        (root / 'lists' / 'meta').mkdir(exist_ok=True)
        lines = []
        for name, label in samples:
            shutil.copy(root / 'folders' / split / name, flat)
            lines.append(f'{Path(name).name} {label}\n')
        (root / 'lists' / 'meta' / f'{split}.txt').write_text(''.join(lines))
    return root


@pytest.fixture(scope='module')
def teacher_file(tmp_path_factory):
    """Save a small timm model that knows as many classes."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(timm.create_model('test_resnet').state_dict(), path)
    return str(path)


class Watch(Hook):
    """Keep losses, metrics, logged scalars and the weights evaluated."""

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        self.losses = {k: float(v) for k, v in outputs.items()}
        self.trained = weights(runner.model)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.evaluated = weights(runner.model)

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


def weights(model):
    return {k: v.clone() for k, v in model.head.state_dict().items()}


def moving_average(runner):
    (hook,) = (h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    return hook.ema_model


def load(name, work_dir, data, teacher_file):
    """Read a recipe and make all of it small."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.work_dir = str(work_dir)
    cfg.visualizer.vis_backends = None
    cfg.randomness = dict(seed=0)
    cfg.default_hooks.logger.interval = 1
    packed = 'lmdb' in name
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.update(
            batch_size=IMAGES // 2,
            num_workers=0,
            persistent_workers=False,
            collate_fn=dict(type='default_collate'),
        )
        dataset = loader.dataset
        if packed:
            dataset.ann_file = str(data / 'lmdb' / 'meta' / f'{split}.txt')
            dataset.pipeline[0].backend_args.db_path = str(
                data / 'lmdb' / f'{split}.lmdb'
            )
        else:
            dataset.data_root = str(data)
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
    data = imagenet if 'lmdb' in name else imagenet / 'lists'
    cfg = load(name, tmp_path, data, teacher_file)
    runner, watch = train(cfg)

    assert all(map(torch.isfinite, map(torch.tensor, watch.losses.values())))
    assert ('loss_distill' in watch.losses) == ('distill' in name)
    assert set(watch.metrics) == {'accuracy/top1', 'accuracy/top5'}
    scalars = runner.message_hub.log_scalars
    rate = IMAGES // 2 / scalars['train/time'].mean()
    assert scalars['train/images_per_s'].current() == pytest.approx(rate)

    path = tmp_path / 'epoch_1.pth'
    saved = torch.load(path, weights_only=True)
    average = {k: v for k, v in saved['state_dict'].items() if 'head' in k}
    assert not [k for k in saved['state_dict'] if 'teacher' in k]
    for key, value in watch.evaluated.items():
        assert torch.equal(value, average[f'head.{key}']), key
        trained = saved['ema_state_dict'][f'module.head.{key}']
        assert torch.equal(trained, watch.trained[key]), key
    # Two steps: the average is where the first one led, almost.
    assert not torch.equal(
        average['head.fc.weight'], watch.trained['fc.weight']
    )
    assert saved['ema_state_dict']['steps'] == IMAGES // 2

    del runner
    cfg = load(name, tmp_path / 'resumed', data, teacher_file)
    cfg.resume, cfg.load_from = True, str(path)
    runner, watch = train(cfg)
    # Nothing was left to train: the Runner only took the state over.
    ema_model = moving_average(runner)
    assert ema_model.steps == IMAGES // 2
    for key, value in average.items():
        assert torch.equal(ema_model.module.state_dict()[key], value), key
    trained = runner.model.state_dict()
    for key, value in saved['ema_state_dict'].items():
        if key.startswith('module.'):
            assert torch.equal(trained[key.removeprefix('module.')], value)
    path.unlink()


def test_resumed_training_goes_on(imagenet, teacher_file, tmp_path):
    allow_mmengine_checkpoints()
    args = (DISTILLED, tmp_path, imagenet / 'lists', teacher_file)
    train(load(*args))
    cfg = load(*args)
    cfg.resume, cfg.train_cfg.max_epochs = True, 2
    runner, _ = train(cfg)
    assert runner.iter == moving_average(runner).steps == IMAGES
    average = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
    for key, value in moving_average(runner).module.state_dict().items():
        assert torch.equal(average['state_dict'][key], value), key
    cfg = load(*args)
    cfg.load_from = str(tmp_path / 'epoch_2.pth')
    cfg.model.teacher_ckpt = None  # testing needs no teacher
    tester = Runner.from_cfg(cfg)
    assert set(tester.test()) == {'accuracy/top1', 'accuracy/top5'}


def test_channels_last_from_folders(imagenet, teacher_file, tmp_path):
    """The layout holds everywhere, and the losses are the same."""
    losses = {}
    for channels_last in (False, True):
        cfg = load(
            DISTILLED,
            tmp_path / str(channels_last),
            imagenet / 'folders',
            teacher_file,
        )
        cfg.default_hooks.checkpoint = None
        if channels_last:
            hook = dict(type='mmmobilemamba.ChannelsLastHook')
            cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), hook]
        runner, watch = train(cfg)
        losses[channels_last] = watch.losses
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
    layout = dict(memory_format=torch.channels_last)
    for model in (runner.model, moving_average(runner).module):
        for name, parameter in model.named_parameters():
            if parameter.dim() == 4:
                assert parameter.is_contiguous(**layout), name
    batch = next(iter(runner.train_dataloader))
    inputs = runner.model.data_preprocessor(batch, True)['inputs']
    assert inputs.is_contiguous(**layout) and not inputs.is_contiguous()


def test_teacher_beside_distributed_training(teacher_file, tmp_path):
    """Wrapped for several processes, the student alone is trained."""
    cfg = load(
        DISTILLED,
        tmp_path,
        tmp_path,
        teacher_file,
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg.model.data_preprocessor = cfg.data_preprocessor
        model = MODELS.build(cfg.model)
    model.init_weights()
    before = model.head.fc.weight.clone()
    distributed.init_process_group(
        'gloo', store=distributed.HashStore(), rank=0, world_size=1
    )
    try:
        wrapped = CPUDistributedDataParallel(model)
        optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 1.0))
        samples = [DataSample().set_gt_label(i) for i in range(2)]
        inputs = torch.randint(256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
        batch = dict(inputs=inputs, data_samples=samples)
        logged = wrapped.train_step(batch, optim_wrapper)
        names = set(wrapped.module.state_dict())
        del wrapped
    finally:
        distributed.destroy_process_group()
    assert {'loss', 'loss_distill'} <= set(logged)
    assert not torch.equal(model.head.fc.weight, before)
    assert not [name for name in names if 'teacher' in name]

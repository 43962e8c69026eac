"""Mixed precision learns what float32 learns, within the spread of seeds."""

import pytest
import torch
from mmengine.runner import Runner
from small_fpn import small_fpn

from mmmobilemamba.datasets import make_shapes

pytest.importorskip('mmseg')

SEEDS = (0, 1, 2)
# The network and what it learns from; of the quickstart's size on a GPU.
CPU = dict(steps=200, side=64, scenes=24, channels=(16, 24, 32), neck=16)
CUDA = dict(
    steps=10_000, side=160, scenes=800, channels=(128, 160, 192), neck=64
)


def train(wrapper, seed, size, folder):
    """Return the mean of the last losses, and the held-out metric."""
    cfg = small_fpn(folder / 'shapes', folder, size['channels'])
    cfg.experiment_name = f'{wrapper}{seed}'
    cfg.randomness = dict(seed=seed)
    cfg.optim_wrapper = dict(
        **wrapper,
        optimizer=dict(type='AdamW', lr=1e-3),
        clip_grad=dict(max_norm=5.0),
    )
    cfg.model.neck.out_channels = cfg.model.decode_head.channels = size['neck']
    cfg.model.decode_head.in_channels = [size['neck']] * 5
    cfg.model.data_preprocessor.size = (size['side'],) * 2
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    steps = size['steps']
    cfg.train_cfg = dict(by_epoch=False, max_iters=steps, val_interval=steps)
    cfg.default_hooks.logger.interval = steps
    runner = Runner.from_cfg(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    found = torch.tensor(scalars['train/loss'].data[0])
    assert len(found) == steps
    assert all(p.isfinite().all() for p in runner.model.state_dict().values())
    tail = found[-steps // 5 :].mean()
    assert tail < 0.7 * found[:5].mean()
    return torch.tensor([tail, scalars['val/mIoU'].current() / 100])


def compare(wrappers, size, folder):
    """Compare every kind of mixed precision with float32 of the same seed."""
    make_shapes(folder / 'shapes', size['scenes'], 24, size['side'])
    plain = torch.stack(
        [train(dict(type='OptimWrapper'), s, size, folder) for s in SEEDS]
    )
    noise = plain.amax(0) - plain.amin(0)
    for wrapper in wrappers:
        mixed = train(wrapper, SEEDS[0], size, folder)
        assert ((mixed - plain[0]).abs() <= noise).all()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='the GPU has its own')
def test_bfloat16_on_a_cpu(tmp_path):
    compare([dict(type='mmmobilemamba.CPUAmpOptimWrapper')], CPU, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_float16_and_bfloat16_on_a_gpu(tmp_path):
    kind = 'AmpOptimWrapper'
    scaled = dict(type=kind, dtype='float16', loss_scale='dynamic')
    plain = dict(type=kind, dtype='bfloat16', loss_scale=dict(enabled=False))
    compare([scaled, plain], CUDA, tmp_path)

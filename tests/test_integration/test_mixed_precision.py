"""Mixed precision learns what float32 learns, step for step as many.

How far apart two runs may be is taken from float32 itself: from the spread
over its seeds.
"""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, OPTIM_WRAPPERS, DefaultScope

from mmmobilemamba.datasets import make_scene

pytest.importorskip('mmseg')

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs/quickstart/fpn_mobilemamba-nano_shapes-160px.py'
SEEDS = (0, 1, 2)
BATCH = 4
# The network and what it learns from; of the quickstart's size on a GPU.
CPU = dict(
    steps=200,
    side=64,
    scenes=24,
    channels=(16, 24, 32),
    depths=(1, 1, 1),
    neck=16,
)
CUDA = dict(
    steps=10_000,
    side=160,
    scenes=800,
    channels=(128, 160, 192),
    depths=(2, 1, 1),
    neck=64,
)


def samples(count, side, seed):
    """Return pictures, uint8 (3, side, side), and their labels."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    pairs = []
    for index in range(count):
        scene = make_scene(index, seed, side)
        labels = torch.from_numpy(scene.label_map()).long()[None]
        sample = SegDataSample(
            metainfo=dict(img_shape=(side, side), ori_shape=(side, side))
        )
        sample.gt_sem_seg = PixelData(data=labels)
        image = torch.from_numpy(scene.image.copy()).permute(2, 0, 1)
        pairs.append((image, sample))
    return pairs


def batch_of(pairs):
    inputs, data_samples = zip(*pairs)
    return dict(inputs=list(inputs), data_samples=list(data_samples))


def make_model(size, device):
    cfg = Config.fromfile(CONFIG).model
    cfg.backbone.arch = dict(channels=size['channels'], depths=size['depths'])
    cfg.neck.update(in_channels=size['channels'], out_channels=size['neck'])
    cfg.decode_head.update(
        in_channels=[size['neck']] * 5, channels=size['neck']
    )
    cfg.data_preprocessor.size = (size['side'], size['side'])
    model = MODELS.build(cfg)
    model.init_weights()
    return model.to(device)


def mean_iou(model, pairs):
    """Evaluate in float32."""
    from mmseg.evaluation import IoUMetric

    total = 0
    for start in range(0, len(pairs), BATCH):
        found = model.test_step(batch_of(pairs[start : start + BATCH]))
        for sample in found:
            areas = IoUMetric.intersect_and_union(
                sample.pred_sem_seg.data.cpu(),
                sample.gt_sem_seg.data.cpu(),
                num_classes=4,
                ignore_index=255,
            )
            total = total + torch.stack(areas[:2])
    return float((total[0] / total[1]).mean())


def train(wrapper, seed, size, device, data):
    """Return the losses of all steps and the metric of held-out scenes."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = make_model(size, device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        wrapper = OPTIM_WRAPPERS.build(
            dict(**wrapper, optimizer=optimizer, clip_grad=dict(max_norm=5.0))
        )
    training, held_out = data
    losses = []
    for _ in range(size['steps']):
        drawn = torch.randint(len(training), (BATCH,)).tolist()
        pairs = [training[number] for number in drawn]
        log = model.train_step(batch_of(pairs), wrapper)
        losses.append(log['loss'].detach())
    assert all(p.isfinite().all() for p in model.state_dict().values())
    model.eval()
    return torch.stack(losses).float().cpu(), mean_iou(model, held_out)


def compare(wrappers, size, device):
    """Compare every kind of mixed precision with float32 of the same seed."""
    data = [samples(size['scenes'], size['side'], 0)]
    data.append(samples(24, size['side'], 1))

    def end(wrapper, seed):
        losses, metric = train(wrapper, seed, size, device, data)
        assert losses.isfinite().all()
        tail = losses[-size['steps'] // 5 :].mean()
        assert tail < 0.7 * losses[:5].mean()
        return torch.tensor([tail, metric])

    plain = torch.stack([end(dict(type='OptimWrapper'), s) for s in SEEDS])
    noise = plain.amax(0) - plain.amin(0)
    for name, wrapper in wrappers.items():
        mixed = end(wrapper, SEEDS[0])
        # Loss and mIoU, for the report; shown with pytest -s.
        print(name, mixed.tolist(), 'float32', plain.tolist())
        assert ((mixed - plain[0]).abs() <= noise).all()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='the GPU has its own')
def test_bfloat16_on_a_cpu():
    wrapper = dict(type='mmmobilemamba.CPUAmpOptimWrapper')
    compare(dict(bfloat16=wrapper), CPU, 'cpu')


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_float16_and_bfloat16_on_a_gpu():
    kind = 'AmpOptimWrapper'
    scaled = dict(type=kind, dtype='float16', loss_scale='dynamic')
    plain = dict(type=kind, dtype='bfloat16', loss_scale=dict(enabled=False))
    compare(dict(float16=scaled, bfloat16=plain), CUDA, 'cuda')

"""A trained classifier's backbone arrives in the dense models, bit for bit."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.checkpoints.carry_over import extract_backbone
from mmmobilemamba.models import MobileMamba

CONFIGS = Path(__file__).parents[2] / 'configs'
DENSE = {
    'mmdet': 'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco.py',
    'mmseg': 'seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512.py',
}


def tensors_like(model, seed):
    """Make other values for every tensor of a module."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator).to(value.dtype)
        for name, value in model.state_dict().items()
    }


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Write a checkpoint as mmengine does after training with EMAHook."""
    with torch.device('meta'):
        backbone = MobileMamba('b1')
    average, trained = (tensors_like(backbone, seed) for seed in (0, 1))
    head = {'head.fc.weight': torch.ones(3, 3)}
    path = tmp_path_factory.mktemp('classifier') / 'epoch_300.pth'
    content = dict(
        meta=dict(epoch=300),
        message_hub={},
        state_dict={f'backbone.{k}': v for k, v in average.items()} | head,
        ema_state_dict={f'module.backbone.{k}': v for k, v in trained.items()}
        | {'steps': torch.tensor(9), 'module.head.fc.weight': torch.ones(1)},
    )
    torch.save(content, path)
    return path, average, trained


def assert_same(got, wanted):
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        assert torch.equal(got[name], value), name


@pytest.mark.parametrize('library', DENSE)
def test_every_tensor_arrives_in_a_dense_model(library, checkpoint, tmp_path):
    pytest.importorskip(library)
    path, average, _ = checkpoint
    report = extract_backbone(path, tmp_path / 'backbone.pth')
    assert 'moving average' in report and str(len(average)) in report
    cfg = Config.fromfile(CONFIGS / DENSE[library])
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth')
    )
    with DefaultScope.overwrite_default_scope(library):
        model = MODELS.build(cfg.model)
    model.init_weights()
    assert_same(model.backbone.state_dict(), average)


def test_trained_weights_instead_of_their_average(checkpoint, tmp_path):
    path, _, trained = checkpoint
    report = extract_backbone(path, tmp_path / 'raw.pth', raw=True)
    assert 'moving average' not in report
    saved = torch.load(tmp_path / 'raw.pth', weights_only=True)
    assert_same(saved['state_dict'], trained)
    assert saved['meta']['moving_average'] is False


def test_checkpoint_without_an_average(checkpoint, tmp_path):
    _, average, _ = checkpoint
    path = tmp_path / 'epoch_1.pth'
    state = {f'backbone.{k}': v for k, v in average.items()}
    torch.save(dict(state_dict=state), path)
    extract_backbone(path, tmp_path / 'backbone.pth')
    saved = torch.load(tmp_path / 'backbone.pth', weights_only=True)
    assert_same(saved['state_dict'], average)
    with pytest.raises(ValueError, match='no moving average'):
        extract_backbone(path, tmp_path / 'other.pth', raw=True)
    assert not (tmp_path / 'other.pth').exists()


def test_refusals(checkpoint, tmp_path):
    path = checkpoint[0]
    there = tmp_path / 'there.pth'
    there.write_bytes(b'mine')
    with pytest.raises(FileExistsError, match='--overwrite'):
        extract_backbone(path, there)
    assert there.read_bytes() == b'mine'
    extract_backbone(path, there, overwrite=True)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        extract_backbone(tmp_path / 'nowhere.pth', tmp_path / 'out.pth')
    torch.save({'patch_embed.0.c.weight': torch.ones(1)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='no tensors named backbone'):
        extract_backbone(tmp_path / 'a.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()

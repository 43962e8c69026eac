"""From file to file: converted whole or refused, whatever the file.

A file that is damaged, of another kind or made to harm ends in an error that
names it, leaves nothing written, and runs nothing.
"""

import io
import os
import shutil
from pathlib import Path

import pytest
import torch
from golden import made_state_dict, to_published
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.checkpoints.convert import convert_file, extract_backbone
from mmmobilemamba.checkpoints.key_map import state_dict_from_published
from mmmobilemamba.models.backbones import MobileMamba

CONFIGS = Path(__file__).parents[2] / 'configs'
REFUSALS = (ValueError, OSError)


def light(tensor):
    """Return a tensor of the same shape whose file holds one value."""
    return tensor.flatten()[0].clone().expand(tensor.shape)


@pytest.fixture(scope='module')
def published():
    state = made_state_dict('t2')
    return {k: v if 'filter' in k else light(v) for k, v in state.items()}


@pytest.fixture(scope='module')
def saved(published):
    file = io.BytesIO()
    torch.save({'net_E': published}, file)
    return file.getvalue()


@pytest.fixture(scope='module')
def backbone():
    return MobileMamba('t2')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('checkpoints')


def convert(folder, content, refused=None):
    """Convert a file, which may be refused; return the error's words."""
    shutil.rmtree(folder)
    folder.mkdir()
    src, dst = folder / 'src.pth', folder / 'dst.pth'
    if isinstance(content, bytes):
        src.write_bytes(content)
    else:
        torch.save(content, src)
    try:
        convert_file(src, dst)
    except REFUSALS as error:
        assert os.listdir(folder) == ['src.pth']
        assert str(error).strip('\'"')
        return str(error)
    assert not refused
    torch.load(dst, weights_only=True)
    return ''


def fill(backbone, path):
    backbone.init_cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone.init_weights()


def test_classifier(folder, tmp_path):
    state = made_state_dict('t2')
    other = {name: value * 2 for name, value in state.items()}
    torch.save({'net': other, 'net_E': state}, tmp_path / 'src.pth')
    dst = tmp_path / 'dst.pth'
    assert 'net_E' in convert_file(tmp_path / 'src.pth', dst)
    content = torch.load(dst, weights_only=True)
    wanted = {
        k if k.startswith('head.') else f'backbone.{k}': v
        for k, v in state_dict_from_published(state).items()
    }
    assert content['state_dict'].keys() == wanted.keys()
    for name, value in content['state_dict'].items():
        assert torch.equal(value, wanted[name]), name
    with pytest.raises(FileExistsError, match='dst.pth'):
        convert_file(tmp_path / 'src.pth', dst)


def test_detector(tmp_path):
    pytest.importorskip('mmdet')
    name = 'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco.py'
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(CONFIGS / name).model)
    content = {to_published(k): v for k, v in model.state_dict().items()}
    torch.save({'state_dict': content}, tmp_path / 'src.pth')
    convert_file(tmp_path / 'src.pth', tmp_path / 'dst.pth')
    ours = torch.load(tmp_path / 'dst.pth', weights_only=True)['state_dict']
    model.load_state_dict(ours, strict=True)


@given(st.data())
def test_damaged_files(folder, saved, data):
    at = data.draw(st.integers(0, len(saved) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=40))
    rest = saved[at + len(noise) :]
    convert(folder, saved[:at], refused=True)
    # Bytes of a tensor are as good as others.
    convert(folder, saved[:at] + noise + rest)
    convert(folder, saved[:at] + rest)


@pytest.mark.parametrize(
    'content',
    [b'', b'text', [1], {}, {1: 'x'}, {'net': None}, {'state_dict': [1, {}]}]
    + [{'../../x': torch.zeros(2)}, {'model': {'blocks1': 3}}],
)
def test_other_content(folder, content):
    assert 'src.pth' in convert(folder, content, refused=True)


@pytest.mark.parametrize(
    'spoil',
    [
        lambda t: torch.zeros(3, 5),
        lambda t: torch.zeros(1).expand(2**40),
        lambda t: 3,
        lambda t: {'weight': t},
        lambda t: t.long(),
        lambda t: t.contiguous().to_sparse(),
        lambda t: torch.full((1,), float('nan')).expand(t.shape),
    ],
)
def test_wrong_tensors(folder, published, backbone, spoil):
    for name in ('patch_embed.0.bn.weight', 'blocks1.0.dw0.m.c.weight'):
        spoiled = {**published, name: spoil(published[name])}
        convert(folder, {'net': spoiled}, refused=True)
        torch.save(spoiled, folder / 'weights.pth')
        with pytest.raises(ValueError):
            fill(backbone, folder / 'weights.pth')


def test_code_is_not_run(folder, published, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'ran'),)

    for content in (
        {**published, 'x': Attack()},
        {'meta': [Attack()], 'net_E': published},
        {**published, ('x', Attack()): 1},
        Attack(),
    ):
        assert 'read safely' in convert(folder, content, refused=True)
    assert not (tmp_path / 'ran').exists()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Write a checkpoint as mmengine does after training with EMAHook."""
    with torch.device('meta'):
        wanted = MobileMamba('t2').state_dict()
    average, raw = (
        {k: torch.full(v.shape, x, dtype=v.dtype) for k, v in wanted.items()}
        for x in (1, 2)
    )
    head = {'head.fc.weight': torch.ones(3, 3)}
    content = dict(
        state_dict={f'backbone.{k}': v for k, v in average.items()} | head,
        ema_state_dict={f'module.backbone.{k}': v for k, v in raw.items()}
        | {'steps': torch.tensor(9), **head},
    )
    path = tmp_path_factory.mktemp('classifier') / 'epoch_300.pth'
    torch.save(content, path)
    return path, average, raw


@pytest.mark.parametrize('raw', [False, True])
def test_backbone_of_a_trained_classifier(trained, backbone, tmp_path, raw):
    report = extract_backbone(trained[0], tmp_path / 'x.pth', raw=raw)
    assert ('moving average' in report) != raw
    fill(backbone, tmp_path / 'x.pth')
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, trained[1 + raw][name]), name


def test_what_holds_no_such_backbone(trained, tmp_path):
    dst = tmp_path / 'out.pth'
    torch.save(dict(state_dict={'backbone.a': torch.ones(1)}), tmp_path / 'a')
    with pytest.raises(ValueError, match='moving average'):
        extract_backbone(tmp_path / 'a', dst, raw=True)
    torch.save({'patch_embed.0.c.weight': torch.ones(1)}, tmp_path / 'a')
    with pytest.raises(ValueError, match='backbone'):
        extract_backbone(tmp_path / 'a', dst)
    assert not dst.exists()
    dst.write_text('mine')
    with pytest.raises(FileExistsError):
        extract_backbone(trained[0], dst)
    assert dst.read_text() == 'mine'

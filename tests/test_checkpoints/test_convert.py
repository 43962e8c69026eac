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
from golden import made_state_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmmobilemamba.checkpoints.checkpoint import load_backbone
from mmmobilemamba.checkpoints.convert import convert_file, extract_backbone
from mmmobilemamba.checkpoints.key_map import state_dict_to_published
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
    """Convert a file and check that what is left fits how it ended.

    Args:
        folder (Path): Folder that is emptied first.
        content (bytes or dict): The file, or what torch.save makes one of.
        refused (bool, optional): Whether it has to be; None lets it be both.
    """
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
        assert refused is not False, error
        assert os.listdir(folder) == ['src.pth']
        assert str(error).strip('\'"')
        return str(error)
    assert not refused
    torch.load(dst, weights_only=True)
    return ''


def test_classifier(folder, tmp_path):
    state = made_state_dict('t2')
    other = {name: value * 2 for name, value in state.items()}
    torch.save({'net': other, 'net_E': state}, tmp_path / 'src.pth')
    dst = tmp_path / 'dst.pth'
    assert 'net_E' in convert_file(tmp_path / 'src.pth', dst)
    content = torch.load(dst, weights_only=True)
    assert content['meta']['arch'] == 't2'
    back = state_dict_to_published(
        {
            k.removeprefix('backbone.'): v
            for k, v in content['state_dict'].items()
        }
    )
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    with pytest.raises(FileExistsError, match='--overwrite'):
        convert_file(tmp_path / 'src.pth', dst)
    with pytest.raises(ValueError, match='state_dict'):
        convert_file(tmp_path / 'src.pth', dst, 'state_dict', overwrite=True)


def test_detector(tmp_path):
    pytest.importorskip('mmdet')
    name = 'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco.py'
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(CONFIGS / name).model)
    content = state_dict_to_published(model.state_dict())
    torch.save({'state_dict': content}, tmp_path / 'src.pth')
    convert_file(tmp_path / 'src.pth', tmp_path / 'dst.pth')
    ours = torch.load(tmp_path / 'dst.pth', weights_only=True)['state_dict']
    model.load_state_dict(ours, strict=True)


@pytest.mark.parametrize(
    'name', ['blocks1.0.dw0.m.bn.bias', 'patch_embed.6.c.weight']
)
def test_what_is_missing_is_named_as_published(folder, published, name):
    content = {k: v for k, v in published.items() if k != name}
    assert name in convert(folder, content, refused=True)


@given(st.data())
def test_damaged_files(folder, saved, data):
    damage = data.draw(st.sampled_from(['cut', 'flip', 'hole', 'noise']))
    at = data.draw(st.integers(0, len(saved) - 1))
    if damage == 'cut':
        convert(folder, saved[:at], refused=True)
        return
    if damage == 'noise':
        convert(folder, data.draw(st.binary(max_size=200)), refused=True)
        return
    noise = data.draw(st.binary(min_size=1, max_size=40))
    if damage == 'hole':
        content = saved[:at] + saved[at + len(noise) :]
    else:
        content = saved[:at] + noise + saved[at + len(noise) :]
    # Bytes of a tensor are as good as others.
    convert(folder, content)


WRONG_VALUES = {
    'another shape': torch.zeros(3, 5),
    'no shape': torch.tensor(1.0),
    'empty': torch.zeros(0),
    'huge': torch.zeros(1).expand(2**40),
    'number': 3,
    'none': None,
    'text': 'weights',
    'nested': {'weight': torch.zeros(3)},
}
WRONG_TENSORS = {
    'int': lambda t: t.long(),
    'bool': lambda t: t.bool(),
    'complex': lambda t: t.to(torch.complex64),
    'sparse': lambda t: t.contiguous().to_sparse(),
    'nan': lambda t: torch.full((1,), float('nan')).expand(t.shape),
    'inf': lambda t: torch.full((1,), float('inf')).expand(t.shape),
}


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_wrong_tensors(folder, published, backbone, data):
    name = data.draw(st.sampled_from(sorted(published)))
    kind = data.draw(st.sampled_from([*WRONG_VALUES, *WRONG_TENSORS]))
    if name.endswith('num_batches_tracked'):
        name = 'patch_embed.0.bn.weight'
    if kind in WRONG_VALUES:
        value = WRONG_VALUES[kind]
    else:
        value = WRONG_TENSORS[kind](published[name])
    spoiled = {**published, name: value}
    # A filter is no weight, and one of another kind may hold its values.
    must = not ('filter' in name or name.startswith('head'))
    container = data.draw(st.sampled_from(['net_E', 'net', 'state_dict']))
    convert(folder, {container: spoiled}, refused=must or None)
    torch.save(spoiled, folder / 'weights.pth')
    if must:
        with pytest.raises(ValueError):
            load_backbone(backbone, folder / 'weights.pth')


NAMES = st.sampled_from(
    ['../../x', '/etc/passwd', 'backbone.', 'module.', '', 'head.', 'blocks1']
) | st.text(max_size=12)


@settings(max_examples=settings().max_examples // 2)
@given(NAMES, st.sampled_from([torch.zeros(2), 3]))
def test_foreign_names(folder, published, name, value):
    # What is no tensor, and a neck's name, are left as they are.
    convert(folder, {**published, name: value})
    convert(folder, {name: value}, refused=True)


@given(
    st.recursive(
        st.none()
        | st.integers()
        | st.text(max_size=5)
        | st.binary(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=5) | st.integers(), inner)
            | st.dictionaries(
                st.sampled_from(['net_E', 'net', 'state_dict', 'model']), inner
            )
        ),
        max_leaves=8,
    )
)
def test_other_content(folder, content):
    message = convert(folder, {'wrapped': content}, refused=True)
    assert 'src.pth' in message
    file = io.BytesIO()
    torch.save(content, file)
    assert 'src.pth' in convert(folder, file.getvalue(), refused=True)


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
    path = tmp_path_factory.mktemp('classifier') / 'epoch_300.pth'
    content = dict(
        state_dict={f'backbone.{k}': v for k, v in average.items()}
        | {'head.fc.weight': torch.ones(3, 3)},
        ema_state_dict={f'module.backbone.{k}': v for k, v in raw.items()}
        | {'steps': torch.tensor(9), 'module.head.fc.weight': torch.ones(1)},
    )
    torch.save(content, path)
    return path, average, raw


def test_backbone_of_a_trained_classifier(trained, backbone, tmp_path):
    path, average, raw = trained
    for flag, wanted in ((False, average), (True, raw)):
        report = extract_backbone(path, tmp_path / f'{flag}.pth', raw=flag)
        assert ('moving average' in report) != flag
        load_backbone(backbone, tmp_path / f'{flag}.pth')
        for name, value in backbone.state_dict().items():
            assert torch.equal(value, wanted[name]), name


def test_what_holds_no_such_backbone(trained, tmp_path):
    dst = tmp_path / 'out.pth'
    with pytest.raises(FileNotFoundError, match='nowhere'):
        extract_backbone(tmp_path / 'nowhere.pth', dst)
    torch.save(dict(state_dict={'backbone.a': torch.ones(1)}), tmp_path / 'a')
    with pytest.raises(ValueError, match='no moving average'):
        extract_backbone(tmp_path / 'a', dst, raw=True)
    torch.save({'patch_embed.0.c.weight': torch.ones(1)}, tmp_path / 'a')
    with pytest.raises(ValueError, match='backbone'):
        extract_backbone(tmp_path / 'a', dst)
    assert not dst.exists()
    dst.write_text('mine')
    with pytest.raises(FileExistsError):
        extract_backbone(trained[0], dst)
    assert dst.read_text() == 'mine'

"""Files at random into converter and backbone: taken whole or refused.

A file that is damaged, of another kind or made to harm ends in an error that
names it, leaves nothing written, and runs nothing.
"""

import io
import os
import shutil

import pytest
import torch
from golden import made_state_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmobilemamba.checkpoints.checkpoint import load_backbone
from mmmobilemamba.checkpoints.convert import convert_file
from mmmobilemamba.models.backbones import MobileMamba

REFUSALS = (ValueError, KeyError, OSError)


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
    with torch.device('meta'):
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


def test_the_file_itself_is_taken(folder, saved):
    convert(folder, saved, refused=False)


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


class Call:
    """What a pickle runs when it is read without care."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('place', ['value', 'meta', 'key', 'whole'])
@pytest.mark.parametrize('function', [os.system, eval, exec, os.mkdir])
def test_code_is_not_run(folder, published, tmp_path, function, place):
    mark = tmp_path / 'ran'
    argument = {
        'system': f'touch {mark}',
        'mkdir': str(mark),
    }.get(function.__name__, f'open({str(mark)!r}, "w")')
    attack = Call(function, argument)
    content = {
        'value': {**published, 'x': attack},
        'meta': {'meta': [attack], 'net_E': published},
        'key': {**published, ('x', attack): 1},
        'whole': attack,
    }[place]
    assert 'read safely' in convert(folder, content, refused=True)
    assert not mark.exists()


def test_places_that_cannot_be_written(folder, saved):
    convert(folder, saved, refused=False)
    src = folder / 'src.pth'
    (folder / 'dst.pth').unlink()
    (folder / 'dst.pth').mkdir()
    with pytest.raises(OSError):
        convert_file(src, folder / 'dst.pth')
    with pytest.raises(OSError):
        convert_file(src, folder / 'dst.pth', overwrite=True)
    with pytest.raises(OSError):
        convert_file(src, src / 'dst.pth')
    with pytest.raises(OSError):
        convert_file(folder, folder / 'other.pth')
    assert sorted(os.listdir(folder)) == ['dst.pth', 'src.pth']

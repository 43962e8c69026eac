"""From file to file: converted whole, or refused with nothing written."""

import io
import os
import shutil
from pathlib import Path

import pytest
import torch
from golden import made_state_dict
from hypothesis import given
from hypothesis import strategies as st

from mmmobilemamba.checkpoints.convert import convert_file, extract_backbone
from mmmobilemamba.checkpoints.key_map import state_dict_from_published


@pytest.fixture(scope='module')
def published():
    """Tensors of the right shapes whose file holds one value of each."""
    state = made_state_dict('t2')
    return {
        k: v if 'filter' in k else v.flatten()[0].clone().expand(v.shape)
        for k, v in state.items()
    }


@pytest.fixture(scope='module')
def convert(tmp_path_factory):
    """Convert content that may be, or has to be, refused."""
    folder = tmp_path_factory.mktemp('checkpoints')

    def call(content, refused=True):
        shutil.rmtree(folder)
        folder.mkdir()
        src, dst = folder / 'src.pth', folder / 'dst.pth'
        if isinstance(content, bytes):
            src.write_bytes(content)
        else:
            torch.save(content, src)
        try:
            convert_file(src, dst)
        except (ValueError, OSError) as error:
            assert 'src.pth' in str(error)
            assert os.listdir(folder) == ['src.pth']
        else:
            assert not refused
            torch.load(dst, weights_only=True)

    return call


@pytest.mark.parametrize('dense', [False, True])
def test_whole_model(tmp_path, dense):
    state = made_state_dict('t2')
    state = {k: v for k, v in state.items() if not k.startswith('head.')}
    ours = state_dict_from_published(state)
    wanted = {f'backbone.{k}': v for k, v in ours.items()}
    bias = torch.ones(2)
    if dense:
        state = {f'backbone.{k}': v for k, v in state.items()}
        state['neck.conv.bias'] = wanted['neck.conv.bias'] = bias
    else:
        state['head.l.bias'] = wanted['head.fc.bias'] = bias
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    torch.save({'net': {}, 'net_E': state}, src)
    if not dense:
        with pytest.raises(ValueError, match='no conversion'):
            extract_backbone(src, dst)
    assert 'net_E' in convert_file(src, dst)
    found = torch.load(dst, weights_only=True)['state_dict']
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    with pytest.raises(FileExistsError, match='dst.pth'):
        convert_file(src, dst)


@pytest.fixture(scope='module')
def saved(published):
    file = io.BytesIO()
    torch.save({'net_E': published}, file)
    return file.getvalue()


@given(st.data())
def test_damaged_files(convert, saved, data):
    at = data.draw(st.integers(0, len(saved) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=40))
    rest = saved[at + len(noise) :]
    convert(saved[:at])
    # Bytes of a tensor are as good as others.
    convert(saved[:at] + noise + rest, refused=False)
    convert(saved[:at] + rest, refused=False)


@pytest.mark.parametrize(
    'content',
    [b'', b'text', [1], {}, {1: 'x'}, {'net': None}, {'state_dict': [1, {}]}]
    + [{'../../x': torch.zeros(2)}, {'model': {'blocks1': 3}}],
)
def test_other_content(convert, content):
    convert(content)


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
def test_wrong_tensors(convert, published, spoil):
    for name in ('patch_embed.0.bn.weight', 'blocks1.0.dw0.m.c.weight'):
        convert({'net': {**published, name: spoil(published[name])}})


def test_code_is_not_run(convert, published, tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / 'ran',)

    for content in (
        {**published, 'x': Attack()},
        {'meta': [Attack()], 'net_E': published},
        {**published, ('x', Attack()): 1},
        Attack(),
    ):
        convert(content)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('raw', [False, True])
def test_backbone_of_a_trained_classifier(tmp_path, raw):
    """mmengine's EMAHook keeps the average as the weights."""
    src, dst = tmp_path / 'epoch_300.pth', tmp_path / 'backbone.pth'
    average, trained = torch.ones(2), torch.zeros(2)
    content = {'state_dict': {'backbone.a': average, 'head.fc.bias': average}}
    torch.save(content, src)
    with pytest.raises(ValueError, match='moving average'):
        extract_backbone(src, dst, raw=True)
    ema = {'module.backbone.a': trained, 'steps': torch.tensor(9)}
    torch.save(content | {'ema_state_dict': ema}, src)
    assert ('moving average' in extract_backbone(src, dst, raw)) != raw
    found = torch.load(dst, weights_only=True)['state_dict']
    assert found.keys() == {'a'}
    assert torch.equal(found['a'], trained if raw else average)
    with pytest.raises(FileExistsError, match='backbone.pth'):
        extract_backbone(src, dst)

"""Files into backbones and models: what is taken, what is refused, and why."""

import pytest
import torch
from golden import (
    cases,
    made_input,
    made_state_dict,
    official_keys,
    relative_error,
)
from mmengine.model import BaseModule
from mmengine.registry import MODELS

from mmmobilemamba.checkpoints.checkpoint import load_checkpoint
from mmmobilemamba.checkpoints.key_map import (
    is_haar_filter,
    is_published,
    state_dict_from_published,
)
from mmmobilemamba.models.backbones import MobileMamba


@pytest.fixture(scope='module')
def published():
    return made_state_dict('t2')


def pretrained(path, **kwargs) -> MobileMamba:
    """Build a t2 backbone as a config with a pretrained file does."""
    model = MODELS.build(
        dict(
            type='mmmobilemamba.MobileMamba',
            arch='t2',
            init_cfg=dict(type='Pretrained', checkpoint=str(path)),
            **kwargs,
        )
    )
    model.init_weights()
    return model


def assert_golden(model: MobileMamba) -> None:
    case = cases()['t2']
    with torch.no_grad():
        outs = model.eval()(made_input(case))
    for out, wanted in zip(outs, case['features'][1:], strict=True):
        assert relative_error(out, wanted) < 1e-4


def as_dense(published):
    backbone = {
        f'backbone.{k}': v
        for k, v in published.items()
        if not k.startswith('head.')
    }
    return backbone | {'neck.conv.bias': torch.zeros(2)}


@pytest.mark.parametrize(
    'pack',
    [
        lambda p: {'net': made_state_dict('t2', salt=1), 'net_E': p},
        lambda p: {'state_dict': as_dense(p)},
        lambda p: {f'module.{k}': v for k, v in p.items()},
        # Files of old torch versions have no counters.
        lambda p: {k: v for k, v in p.items() if 'num_batches' not in k},
    ],
    ids=['net_E-preferred', 'dense', 'data-parallel', 'old'],
)
def test_published_file_as_it_is(tmp_path, published, pack):
    torch.save(pack(published), tmp_path / 'file.pth')
    assert_golden(pretrained(tmp_path / 'file.pth'))


NAME = 'blocks2.3.mixer.m.attn.global_op.global_atten.Ds'


@pytest.mark.parametrize(
    ('spoil', 'named'),
    [
        (lambda p: {'layer1.0.conv1.weight': torch.zeros(3)}, 'another netw'),
        (lambda p: made_state_dict('s6'), r'24, 3, 3, 3'),
        (lambda p: {k: v for k, v in p.items() if k != NAME}, r'ss2d\.D'),
        (lambda p: {**p, 'blocks1.0.x': torch.zeros(1)}, r'blocks\.0\.x'),
    ],
    ids=['foreign', 'variant', 'incomplete', 'left over'],
)
def test_file_that_does_not_fit(tmp_path, published, spoil, named):
    torch.save(spoil(published), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=rf'(?s)x.pth.*{named}'):
        pretrained(tmp_path / 'x.pth')


def test_our_own_files(tmp_path, published):
    """Of a backbone, of a whole model, and of a fused backbone."""
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        pretrained(tmp_path / 'absent.pth')
    torch.save(published, tmp_path / 'published.pth')
    model = pretrained(tmp_path / 'published.pth')
    bare = model.state_dict()
    whole = {f'backbone.{k}': v for k, v in bare.items()}
    whole['head.fc.weight'] = torch.zeros(10, 368)
    for state in (bare, whole):
        torch.save({'state_dict': state}, tmp_path / 'ours.pth')
        assert_golden(pretrained(tmp_path / 'ours.pth'))
    model.switch_to_deploy()
    torch.save(model.state_dict(), tmp_path / 'fused.pth')
    assert_golden(pretrained(tmp_path / 'fused.pth', deploy=True))


class Detector(BaseModule):
    def __init__(self):
        super().__init__()
        self.backbone = MobileMamba('t2')
        self.neck = torch.nn.Conv2d(2, 2, 1)


def test_whole_model(tmp_path, published):
    """Published names are taken; a part of a model is when that is asked."""
    content = as_dense(published)
    path = tmp_path / 'x.pth'
    torch.save({'state_dict': content, 'meta': {}}, path)
    model = Detector()
    with pytest.raises(ValueError, match=r'neck\.weight'):
        load_checkpoint(model, path)
    assert 'meta' in load_checkpoint(model, path, partial=True)
    assert_golden(model.backbone)
    torch.save({'state_dict': {'conv.weight': torch.ones(3)}}, path)
    with pytest.raises(ValueError, match='conv.weight'):
        load_checkpoint(model, path, partial=True)
    # A classifier's names stand at the top level.
    torch.save({'net': published}, path)
    with pytest.raises(ValueError, match='mobilemamba_to_mm'):
        load_checkpoint(model, path)


@pytest.mark.parametrize(
    'spoil',
    [lambda f: f.flip(0), lambda f: f * 2**-0.5, lambda f: f[0, 0, 0, 0]],
)
def test_other_wavelets_are_refused(spoil):
    published = made_state_dict('t2')
    name = next(filter(is_haar_filter, published))
    published[name] = spoil(published[name])
    with pytest.raises(ValueError, match=name):
        state_dict_from_published(published)


def test_published_files_are_told_from_those_of_other_networks():
    assert is_published(made_state_dict('t2'))
    assert is_published(official_keys()['downstream_parameters']['mask_rcnn'])
    # EfficientViT of timm, Swin of the host libraries
    assert not is_published(['patch_embed.conv1.conv.weight'])
    assert not is_published(['backbone.patch_embed.projection.weight'])

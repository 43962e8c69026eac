"""Files into backbones and models: what is taken, what is refused, and why."""

import golden
import pytest
import torch
from golden import made_state_dict
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS
from torch import nn

from mmmobilemamba.checkpoints import key_map
from mmmobilemamba.checkpoints.checkpoint import (
    load_checkpoint,
    load_weights,
)
from mmmobilemamba.checkpoints.key_map import state_dict_from_published
from mmmobilemamba.models.backbones import MobileMamba


@pytest.fixture(scope='module')
def published():
    return made_state_dict('t2')


@pytest.fixture
def pretrain(tmp_path):
    """Build a t2 backbone as a config with a pretrained file does."""

    def call(content, **kwargs):
        torch.save(content, tmp_path / 'x.pth')
        # Mostly a name and no list; mmengine takes the others, too.
        init_cfg = dict(type=PretrainedInit, checkpoint=f'{tmp_path}/x.pth')
        init_cfg = [dict(type='Xavier', layer='Conv2d'), init_cfg]
        kwargs.update(type='mmmobilemamba.MobileMamba', arch='t2')
        model = MODELS.build(dict(kwargs, init_cfg=init_cfg))
        model.init_weights()
        return model

    return call


def assert_golden(model):
    case = golden.cases()['t2']
    with torch.no_grad():
        outs = model.eval()(golden.made_input(case))
    for out, wanted in zip(outs, case['features'][1:], strict=True):
        assert golden.relative_error(out, wanted) < 1e-4


def as_dense(published):
    backbone = {
        f'backbone.{k}': v
        for k, v in published.items()
        if not k.startswith('head.')
    }
    return backbone | {'neck.bias': torch.zeros(2)}


@pytest.mark.parametrize(
    'pack',
    [
        lambda p: {'net': made_state_dict('t2', salt=1), 'net_E': p},
        lambda p: {'state_dict': as_dense(p)},
        lambda p: {f'module.{k}': v for k, v in p.items()},
        # Files of old torch versions have no counters.
        lambda p: {k: v for k, v in p.items() if 'num_batches' not in k},
        lambda p: {'state_dict': as_dense(state_dict_from_published(p))},
    ],
)
def test_file_as_it_is(pretrain, published, pack):
    assert_golden(pretrain(pack(published)))


@pytest.mark.parametrize(
    ('spoil', 'named'),
    [
        (lambda p: {'layer1.0.conv1.weight': torch.zeros(3)}, 'another netw'),
        (lambda p: made_state_dict('s6'), r'24, 3, 3, 3'),
        (lambda p: {k: v for k, v in p.items() if 'Ds' not in k}, r'ss2d\.D'),
        (lambda p: {**p, 'blocks1.0.x': torch.zeros(1)}, r'blocks\.0\.x'),
    ],
)
def test_file_that_does_not_fit(pretrain, published, spoil, named):
    with pytest.raises(ValueError, match=rf'(?s)x.pth.*{named}'):
        pretrain(spoil(published))


def test_file_of_a_fused_backbone(pretrain, published):
    model = pretrain(published)
    model.switch_to_deploy()
    assert_golden(pretrain(model.state_dict(), deploy=True))


def test_whole_model(tmp_path, published):
    """Published names are taken; a part of a model is when that is asked."""
    parts = dict(backbone=MobileMamba('t2'), neck=nn.Conv2d(2, 2, 1))
    path, model = tmp_path / 'x.pth', nn.ModuleDict(parts)
    with pytest.raises(FileNotFoundError, match='x.pth'):
        load_checkpoint(model, path)
    torch.save({'state_dict': as_dense(published), 'meta': {}}, path)
    with pytest.raises(ValueError, match=r'neck\.weight'):
        load_checkpoint(model, path)
    assert 'meta' in load_checkpoint(model, path, partial=True)
    assert_golden(parts['backbone'])
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
def test_other_wavelets_are_refused(published, spoil):
    name = next(filter(key_map.is_haar_filter, published))
    with pytest.raises(ValueError, match=name):
        state_dict_from_published({**published, name: spoil(published[name])})


def test_names_of_a_model_are_not_taken_for_published_ones():
    """SHViT calls the parts of its stem as published MobileMambas do."""
    model = nn.Module()
    conv = nn.ModuleDict(dict(c=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    model.patch_embed = nn.Sequential(conv)
    saved = {name: x + 1 for name, x in model.state_dict().items()}
    assert key_map.is_published(saved)
    load_weights(model, saved, 'shvit.pth')
    assert torch.equal(conv['c'].weight, saved['patch_embed.0.c.weight'])


def test_published_files_are_told_from_those_of_other_networks():
    keys = golden.official_keys()['downstream_parameters']
    assert key_map.is_published(keys['mask_rcnn'])
    # EfficientViT of timm, Swin of the host libraries
    assert not key_map.is_published(['patch_embed.conv1.conv.weight'])
    assert not key_map.is_published(['backbone.patch_embed.projection.weight'])

"""Published names and ours, both ways."""

import pytest
import torch
from golden import made_state_dict, official_keys

from mmmobilemamba.checkpoints.key_map import (
    haar_filters,
    is_haar_filter,
    is_published,
    state_dict_from_published,
    state_dict_to_published,
    from_published,
    to_published,
)


@pytest.mark.parametrize('variant', ['t2', 't4', 's6', 'b1'])
def test_there_and_back(variant):
    published = made_state_dict(variant)
    ours = state_dict_from_published(published)
    filters = sum(is_haar_filter(name) for name in published)
    assert filters > 0 and len(ours) == len(published) - filters
    back = state_dict_to_published(ours)
    assert back.keys() == published.keys()
    for name, tensor in published.items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize('model', official_keys()['downstream_parameters'])
def test_downstream_names_there_and_back(model):
    names = official_keys()['downstream_parameters'][model]
    for name in names:
        if not is_haar_filter(name):
            assert to_published(from_published(name)) == name
        if not name.startswith('backbone.'):
            assert from_published(name) == name


@pytest.mark.parametrize(
    'name',
    [
        'blocks1.0.dw0.m.weight',
        'blocks4.0.dw0.m.c.weight',
        'backbone.layer1.0.conv1.weight',
        'patch_embed.1.c.weight',
        'head.fc.weight',
    ],
)
def test_unknown_published_name(name):
    with pytest.raises(KeyError, match=name):
        from_published(name)


def test_ours_without_a_published_counterpart():
    name = 'stages.0.blocks.0.mixer.local_path.1.dw.conv.weight'
    with pytest.raises(KeyError, match='local_path.1'):
        to_published(name)


@pytest.mark.parametrize(
    'spoil',
    [
        lambda f: -f,
        lambda f: f.flip(0),
        lambda f: f * 2**-0.5,
        lambda f: f[:, :, :, :1],
    ],
)
def test_other_wavelets_are_refused(spoil):
    published = made_state_dict('t2')
    name = next(filter(is_haar_filter, published))
    published[name] = spoil(published[name])
    with pytest.raises(ValueError, match=name):
        state_dict_from_published(published)


def test_haar_filters_are_orthonormal():
    bank = haar_filters(1).flatten(1)
    torch.testing.assert_close(bank @ bank.T, torch.eye(4))


def test_published_files_are_told_from_those_of_other_networks():
    assert is_published(made_state_dict('t2'))
    assert is_published(official_keys()['downstream_parameters']['mask_rcnn'])
    # EfficientViT of timm, Swin of the host libraries
    assert not is_published(['patch_embed.conv1.conv.weight'])
    assert not is_published(['backbone.patch_embed.projection.weight'])

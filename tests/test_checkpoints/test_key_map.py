"""Published names and ours, both ways."""

import pytest
import torch
from golden import made_state_dict, official_keys

from mmmobilemamba.checkpoints.key_map import (
    from_published,
    is_haar_filter,
    is_published,
    state_dict_from_published,
    state_dict_to_published,
    to_published,
)
from mmmobilemamba.models.backbones import MobileMamba


@pytest.mark.parametrize('variant', ['t2', 't4', 's6', 'b1'])
def test_there_and_back(variant):
    published = made_state_dict(variant)
    ours = state_dict_from_published(published)
    with torch.device('meta'):
        wanted = MobileMamba(variant).state_dict()
    shapes = {k: v.shape for k, v in ours.items() if 'head.' not in k}
    assert shapes == {k: v.shape for k, v in wanted.items()}
    back = state_dict_to_published(ours)
    assert back.keys() == published.keys()
    for name, tensor in published.items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize('model', official_keys()['downstream_parameters'])
def test_downstream_names_there_and_back(model):
    for name in official_keys()['downstream_parameters'][model]:
        if not is_haar_filter(name):
            assert to_published(from_published(name)) == name
        if not name.startswith('backbone.'):
            assert from_published(name) == name


@pytest.mark.parametrize(
    'spoil',
    [
        lambda f: f.flip(0),
        lambda f: f * 2**-0.5,
    ],
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

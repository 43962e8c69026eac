"""What is a published file; the names are tested with the configs."""

import pytest
from golden import made_state_dict, official_keys

from mmmobilemamba.checkpoints.key_map import (
    is_haar_filter,
    is_published,
    state_dict_from_published,
)


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

"""Images of folders: their labels, and who trains on which."""

import pytest

from mmmobilemamba.datasets.image_folders import split_images


def make(root, layout):
    for name, count in layout.items():
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(count):
            (folder / f'{index}.png').touch()
    return root


@pytest.mark.parametrize('held_out', ['val', 'test'])
def test_folders_that_are_split_already(tmp_path, held_out):
    make(tmp_path, {f'{held_out}/a': 1, f'{held_out}/b': 1})
    split = split_images(make(tmp_path, {'train/b': 2, 'train/a': 1}))
    assert split.classes == ('a', 'b')
    wanted = [('a/0.png', 0), ('b/0.png', 1), ('b/1.png', 1)]
    assert split.train == [(f'train/{name}', n) for name, n in wanted]
    assert split.val == [(f'{held_out}/{name}', n) for name, n in wanted[:2]]


def test_split_by_seed(tmp_path):
    make(tmp_path, {'a': 10, 'b': 3, 'c': 2})
    split = split_images(tmp_path, 0.3)
    assert split == split_images(tmp_path, 0.3)
    assert split.val != split_images(tmp_path, 0.3, seed=1).val
    assert not set(split.train) & set(split.val)
    assert len(split.train) + len(split.val) == 15
    # Of every class its share, and at least one.
    assert [[c for _, c in split.val].count(i) for i in range(3)] == [3, 1, 1]


@pytest.mark.parametrize(
    'layout, named',
    [
        ({}, 'no folder per class'),
        ({'a': 3, 'b': 1}, 'Class b .*has 1'),
        ({'train/a': 1, 'train/b': 1}, 'none to hold out'),
        ({'train/a': 1, 'train/b': 1, 'val/a': 1}, 'different classes: b'),
    ],
)
def test_folders_that_will_not_do(tmp_path, layout, named):
    with pytest.raises(ValueError, match=named):
        split_images(make(tmp_path, layout))

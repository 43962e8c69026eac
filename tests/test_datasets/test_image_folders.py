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
    layout = {
        'train/b': 2,
        'train/a': 1,
        f'{held_out}/a': 1,
        f'{held_out}/b': 1,
    }
    split = split_images(make(tmp_path, layout))
    assert split.classes == ('a', 'b')
    assert split.train == [
        ('train/a/0.png', 0),
        ('train/b/0.png', 1),
        ('train/b/1.png', 1),
    ]
    assert split.val == [
        (f'{held_out}/a/0.png', 0),
        (f'{held_out}/b/0.png', 1),
    ]


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
        ({'a': 3}, 'two or more'),
        ({}, 'no folder per class'),
        ({'a': 3, 'b': 0}, 'Class b .*has 0'),
        ({'a': 3, 'b': 1}, 'Class b .*has 1'),
        (
            {'train/a': 1, 'train/b': 0, 'val/a': 1, 'val/b': 1},
            'without: b',
        ),
        ({'train/a': 1, 'train/b': 1}, 'none to hold out'),
        ({'train/a': 1, 'train/b': 1, 'val/a': 1}, 'different classes: b'),
    ],
)
def test_folders_that_will_not_do(tmp_path, layout, named):
    with pytest.raises(ValueError, match=named):
        split_images(make(tmp_path, layout))

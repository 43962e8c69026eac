"""Dividing an annotation file: whole images, even classes, same for a seed."""

import json
import runpy

import pytest


@pytest.fixture
def source(tmp_path):
    """Twenty images: figs on every one, the two dates on two."""
    objects = [(100 + i % 20, 7) for i in range(60)] + [(100, 3), (109, 3)]
    annotations = [
        dict(id=number, image_id=image, category_id=category)
        for number, (image, category) in enumerate(objects)
    ]
    content = dict(
        info=dict(year=2026),
        images=[dict(id=100 + i, file_name=f'{i}.jpg') for i in range(20)],
        annotations=annotations,
        categories=[dict(id=7, name='fig'), dict(id=3, name='date')],
    )
    path = tmp_path / 'all.json'
    path.write_text(json.dumps(content))
    return path


def read(folder):
    names = 'train.json', 'val.json'
    return [json.loads((folder / name).read_text()) for name in names]


@pytest.fixture
def tool(repo):
    path = repo / 'tools' / 'dataset_converters' / 'split_coco.py'
    return runpy.run_path(str(path))


def test_every_image_and_object_is_in_one_file(source, tmp_path, tool, capsys):
    tool['main']([str(source), str(tmp_path / 'out'), '--val-share', '0.25'])
    said = capsys.readouterr().out
    assert '15 images, 45 fig, 1 date' in said
    assert '5 images, 15 fig, 1 date' in said
    train, val = read(tmp_path / 'out')
    whole = json.loads(source.read_text())
    for key in ('images', 'annotations'):
        ids = [entry['id'] for entry in train[key] + val[key]]
        assert sorted(ids) == [entry['id'] for entry in whole[key]]
    for part in (train, val):
        ids = {image['id'] for image in part['images']}
        assert {entry['image_id'] for entry in part['annotations']} <= ids
    for key in ('info', 'categories'):
        assert train[key] == val[key] == whole[key]
    (tmp_path / 'out/train.json').unlink()
    with pytest.raises(FileExistsError, match=r'val\.json'):
        tool['split_coco'](source, tmp_path / 'out')
    assert not (tmp_path / 'out/train.json').exists()


def test_a_rare_class_is_in_both_for_any_seed(source, tmp_path, tool):
    chosen = set()
    for seed in range(5):
        for again in range(2):
            tool['split_coco'](source, tmp_path / f'{seed}{again}', 0.1, seed)
        train, val = read(tmp_path / f'{seed}0')
        assert read(tmp_path / f'{seed}1') == [train, val]
        for part in (train, val):
            assert any(a['category_id'] == 3 for a in part['annotations'])
        chosen.add(tuple(image['id'] for image in val['images']))
    assert len(chosen) > 1


def test_files_that_cannot_be_divided(source, tmp_path, tool, capsys):
    content = json.loads(source.read_text())
    for images in (None, [], content['images'][1:], [None, 1]):
        source.write_text(json.dumps(dict(content, images=images)))
        with pytest.raises(SystemExit):
            tool['main']([str(source), str(tmp_path / 'other')])
        assert str(source) in capsys.readouterr().err
        assert not (tmp_path / 'other').exists()

"""The embedded data set: scenes, their annotations, the folder."""

import runpy

import cv2
import numpy as np
import pytest

from mmmobilemamba.datasets import (
    SHAPES_CLASSES,
    make_scene,
    make_shapes,
    shapes,
)

SETTINGS = dict(num_train=4, num_val=3, size=96, seed=5)


@pytest.fixture(scope='module')
def scenes():
    return [make_scene(index) for index in range(40)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('shapes') / 'data'
    assert make_shapes(out, **SETTINGS)
    return out


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_classes_counts_and_sizes(scenes):
    labels = np.concatenate([scene.labels for scene in scenes])
    assert len(np.unique(labels)) == len(SHAPES_CLASSES)
    assert {len(scene.labels) for scene in scenes} == {1, 2, 3, 4, 5}
    masks = np.concatenate([scene.full_masks for scene in scenes])
    sides = np.stack([masks.any(axis).sum(-1) for axis in (1, 2)])
    # Corners thinner than a pixel may be lost at either end.
    assert 17 <= sides.min() < 30 < 70 < sides.max() <= 81


def test_objects_overlap_but_none_is_almost_hidden(scenes):
    shares = []
    for scene in scenes:
        covered = np.zeros((160, 160), dtype=bool)
        for mask, full in zip(
            scene.masks[::-1], scene.full_masks[::-1], strict=True
        ):
            assert (mask == full & ~covered).all()
            covered |= full
            shares.append(mask.sum() / full.sum())
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            assert (scene.label_map()[mask] == label + 1).all()
    assert sum(share < 0.95 for share in shares) >= 10
    assert min(shares) >= shapes.MIN_VISIBLE


def test_annotations_are_exact(folder):
    coco_api = pytest.importorskip('pycocotools.coco')
    for split, seed in (('train', 5), ('val', 1000005)):
        path = folder / 'annotations' / f'instances_{split}.json'
        coco = coco_api.COCO(str(path))
        names = [c['name'] for c in coco.loadCats(coco.getCatIds())]
        assert names == [*SHAPES_CLASSES]
        assert len(coco.imgs) == SETTINGS[f'num_{split}']
        for index, image_id in enumerate(coco.getImgIds()):
            scene = make_scene(index, seed=seed, size=96)
            name = coco.imgs[image_id]['file_name']
            pixels, labels = (
                cv2.imread(str(folder / kind / split / name), -1)
                for kind in ('images', 'labels')
            )
            assert (pixels[..., ::-1] == scene.image).all()
            assert (labels == scene.label_map()).all()
            found = coco.loadAnns(coco.getAnnIds(image_id))
            for ann, mask, label in zip(
                found, scene.masks, scene.labels, strict=True
            ):
                assert (coco.annToMask(ann) == mask).all()
                assert ann['category_id'] == label + 1
                assert ann['area'] == mask.sum()
                rows, cols = (np.flatnonzero(mask.any(x)) for x in (1, 0))
                assert ann['bbox'] == [
                    *(cols[0], rows[0], np.ptp(cols) + 1, np.ptp(rows) + 1)
                ]


def test_what_is_there_is_taken_or_refused(folder, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    assert not make_shapes(folder, **SETTINGS)
    with pytest.raises(FileExistsError, match='seed is 5, asked for 6'):
        make_shapes(folder, **{**SETTINGS, 'seed': 6})
    after = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    assert before == after
    out = tmp_path / 'data'
    make_shapes(out, **SETTINGS)
    assert make_shapes(out, overwrite=True, **{**SETTINGS, 'num_val': 1})
    assert len(list((out / 'images' / 'val').iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ['data']


@pytest.mark.parametrize('overwrite', [False, True])
def test_foreign_folder_is_left_alone(tmp_path, overwrite):
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(FileExistsError, match='not made by this gen'):
        make_shapes(tmp_path, overwrite=overwrite, **SETTINGS)
    assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


def test_nothing_is_left_of_a_failed_run(tmp_path, monkeypatch):
    def fail(image, path):
        raise OSError('disk full')

    monkeypatch.setattr('PIL.Image.Image.save', fail)
    with pytest.raises(OSError, match='disk full'):
        make_shapes(tmp_path / 'data', **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_command(folder, tmp_path, repo, monkeypatch, capsys):
    tool = str(repo / 'tools' / 'dataset_converters' / 'make_shapes.py')
    args = ['make_shapes', str(tmp_path / 'data'), '--num-train=4']
    args += ['--num-val=3', '--size=96', '--seed=5']
    monkeypatch.setattr('sys.argv', args)
    runpy.run_path(tool, run_name='__main__')
    assert files_of(tmp_path / 'data') == files_of(folder)
    monkeypatch.setattr('sys.argv', [*args, '--num-val=0'])
    with pytest.raises(SystemExit):
        runpy.run_path(tool, run_name='__main__')
    assert 'num_val' in capsys.readouterr().err

"""The embedded data set: scenes, their annotations, the folder."""

import runpy

import cv2
import numpy as np
import pytest

from mmmobilemamba.datasets import SHAPES_CLASSES, make_scene, make_shapes

SETTINGS = dict(num_train=4, num_val=3, size=96, seed=5)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('shapes') / 'data'
    assert make_shapes(out, **SETTINGS)
    return out


def files_of(folder):
    files = [path for path in folder.rglob('*') if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_classes_counts_and_overlaps():
    scenes = [make_scene(index) for index in range(40)]
    labels = np.concatenate([labels for _, _, labels in scenes])
    assert len(np.unique(labels)) == len(SHAPES_CLASSES)
    assert {len(labels) for _, _, labels in scenes} == {1, 2, 3, 4, 5}
    for _, masks, _ in scenes:
        assert masks.sum(0).max() == 1 and masks.any((1, 2)).all()
    sides = np.stack([m.any(1).sum(-1).max() for _, m, _ in scenes])
    assert 20 < sides.min() < sides.max() <= 81


def test_annotations_are_exact(folder):
    coco_api = pytest.importorskip('pycocotools.coco')
    for split, seed in (('train', 5), ('val', 1000005)):
        path = folder / 'annotations' / f'instances_{split}.json'
        coco = coco_api.COCO(str(path))
        names = [c['name'] for c in coco.loadCats(coco.getCatIds())]
        assert names == [*SHAPES_CLASSES]
        assert len(coco.imgs) == SETTINGS[f'num_{split}']
        for index, image_id in enumerate(coco.getImgIds()):
            image, masks, labels = make_scene(index, seed=seed, size=96)
            name = coco.imgs[image_id]['file_name']
            pixels, label_map = (
                cv2.imread(str(folder / kind / split / name), -1)
                for kind in ('images', 'labels')
            )
            assert (pixels[..., ::-1] == image).all()
            assert (
                label_map == np.dot(labels + 1, masks.swapaxes(0, 1))
            ).all()
            found = coco.loadAnns(coco.getAnnIds(image_id))
            for ann, mask, label in zip(found, masks, labels, strict=True):
                assert (coco.annToMask(ann) == mask).all()
                assert ann['category_id'] == label + 1
                assert ann['area'] == mask.sum()
                rows, cols = (np.flatnonzero(mask.any(x)) for x in (1, 0))
                assert ann['bbox'] == [
                    *(cols[0], rows[0], np.ptp(cols) + 1, np.ptp(rows) + 1)
                ]


def test_what_is_there_is_taken_or_refused(folder, tmp_path):
    before = files_of(folder)
    assert not make_shapes(folder, **SETTINGS)
    with pytest.raises(FileExistsError, match="'seed': 6"):
        make_shapes(folder, **{**SETTINGS, 'seed': 6})
    assert before == files_of(folder)
    (tmp_path / 'thesis.tex').write_text('years of work')
    with pytest.raises(FileExistsError):
        make_shapes(tmp_path, **SETTINGS)


def test_nothing_is_left_of_a_failed_run(tmp_path, monkeypatch):
    def fail(image, path):
        raise OSError('disk full')

    monkeypatch.setattr('PIL.Image.Image.save', fail)
    with pytest.raises(OSError, match='disk full'):
        make_shapes(tmp_path / 'data', **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_command(folder, tmp_path, repo, capsys):
    tool = repo / 'tools' / 'dataset_converters' / 'make_shapes.py'
    main = runpy.run_path(str(tool))['main']
    args = [str(tmp_path / 'data'), '--num-train=4', '--num-val=3']
    main([*args, '--size=96', '--seed=5'])
    assert files_of(tmp_path / 'data') == files_of(folder)
    with pytest.raises(SystemExit):
        main([*args, '--size=64'])
    assert "'size': 64" in capsys.readouterr().err

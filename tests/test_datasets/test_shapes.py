import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmmobilemamba.datasets import (
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_SEG_CLASSES,
    SHAPES_SEG_PALETTE,
    make_scene,
    make_shapes,
    shapes_folder,
)
from mmmobilemamba.datasets import shapes as shapes_module

ROOT = Path(__file__).parents[2]
SETTINGS = dict(num_train=4, num_val=3, size=96, seed=5)


@pytest.fixture(scope='module')
def scenes():
    return [make_scene(index) for index in range(40)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('shapes') / 'data'
    assert make_shapes(out, **SETTINGS)
    return out


def read_png(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


class TestScene:
    def test_shapes_and_types(self, scenes):
        for scene in scenes:
            count = len(scene.labels)
            assert 1 <= count <= 5
            assert scene.image.shape == (160, 160, 3)
            assert scene.image.dtype == np.uint8
            assert scene.masks.shape == (count, 160, 160)
            assert scene.masks.dtype == bool
            assert set(scene.labels.tolist()) <= set(
                range(len(SHAPES_CLASSES))
            )

    def test_every_class_and_count_occurs(self, scenes):
        labels = np.concatenate([scene.labels for scene in scenes])
        assert len(np.unique(labels)) == len(SHAPES_CLASSES)
        counts = {len(scene.labels) for scene in scenes}
        assert counts == {1, 2, 3, 4, 5}

    def test_visible_is_full_less_what_lies_on_it(self, scenes):
        for scene in scenes:
            covered = np.zeros((160, 160), dtype=bool)
            for mask, full in zip(
                scene.masks[::-1], scene.full_masks[::-1], strict=True
            ):
                assert (mask == full & ~covered).all()
                covered |= full

    def test_objects_overlap_but_none_is_almost_hidden(self, scenes):
        shares = np.concatenate(
            [
                scene.masks.sum((1, 2)) / scene.full_masks.sum((1, 2))
                for scene in scenes
            ]
        )
        assert (shares < 0.95).sum() >= 10
        assert shares.min() >= shapes_module.MIN_VISIBLE

    def test_sizes_are_20_to_80_pixels(self, scenes):
        sides = []
        for scene in scenes:
            for full in scene.full_masks:
                sides += [full.any(0).sum(), full.any(1).sum()]
        # corners thinner than a pixel may be lost at either end
        assert min(sides) >= 20 - 3
        assert max(sides) <= 80 + 1
        assert min(sides) < 30 < 70 < max(sides)

    @pytest.mark.parametrize('kind', SHAPES_CLASSES)
    def test_area_is_that_of_the_outline(self, kind):
        rng = np.random.default_rng(0)
        for _ in range(10):
            outline = shapes_module._outline(rng, kind, 20, 80)
            coverage = shapes_module._coverage(outline + 7.3, 160)
            if kind == 'circle':
                area = np.pi * (outline[1, 0] - outline[0, 0]) ** 2 / 4
            else:
                x, y = outline.T
                area = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
            assert coverage.sum() == pytest.approx(area, rel=0.01)
            assert (coverage >= 0.5).sum() == pytest.approx(area, rel=0.05)

    def test_mask_is_where_the_object_is_painted(self, monkeypatch):
        monkeypatch.setattr(
            shapes_module,
            '_ground',
            lambda rng, size: np.zeros((size, size, 3), np.float32),
        )
        monkeypatch.setattr(
            shapes_module,
            '_paint',
            lambda rng, size, ground, kind: np.full((size, size, 3), 200.0),
        )
        for index in range(5):
            scene = make_scene(index)
            lit = scene.image[..., 0] >= 100
            assert (lit == scene.masks.any(0)).all()

    def test_label_map(self, scenes):
        for scene in scenes[:5]:
            label_map = scene.label_map()
            assert (label_map > 0).sum() == scene.masks.sum()
            for mask, label in zip(scene.masks, scene.labels, strict=True):
                assert (label_map[mask] == label + 1).all()

    def test_ground_is_textured(self, scenes):
        for scene in scenes:
            assert scene.image[~scene.masks.any(0)].std(0).min() > 5

    def test_deterministic(self):
        first, again = make_scene(3, seed=2), make_scene(3, seed=2)
        assert (first.image == again.image).all()
        assert (first.masks == again.masks).all()
        assert (first.image != make_scene(4, seed=2).image).any()
        assert (first.image != make_scene(3, seed=3).image).any()

    @pytest.mark.parametrize(
        'arguments, message',
        [
            (dict(index=-1), 'index must be at least 0, but got -1'),
            (dict(index=0, seed=-2), 'seed must be at least 0, but got -2'),
            (dict(index=0, size=60), 'size=60 and max_object=80'),
            (dict(index=0, min_object=50), 'min_object=50'),
            (dict(index=0, min_object=2), 'at least 8, but got 2'),
        ],
    )
    def test_bad_values(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            make_scene(**arguments)

    def test_bad_types(self):
        with pytest.raises(TypeError, match="size must be an int, but got '"):
            make_scene(0, size='160')


class TestFolder:
    def test_coco_is_valid_and_exact(self, folder):
        coco_api = pytest.importorskip('pycocotools.coco')
        for split, seed in (('train', 5), ('val', 1000005)):
            path = folder / 'annotations' / f'instances_{split}.json'
            coco = coco_api.COCO(str(path))
            assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == [
                *SHAPES_CLASSES
            ]
            assert len(coco.imgs) == SETTINGS[f'num_{split}']
            for index, image_id in enumerate(coco.getImgIds()):
                scene = make_scene(index, seed=seed, size=96)
                info = coco.imgs[image_id]
                pixels = read_png(
                    folder / 'images' / split / info['file_name']
                )
                assert pixels.shape == (info['height'], info['width'], 3)
                assert (pixels[..., ::-1] == scene.image).all()
                found = coco.loadAnns(coco.getAnnIds(image_id))
                assert len(found) == len(scene.labels)
                for ann, mask, label in zip(
                    found, scene.masks, scene.labels, strict=True
                ):
                    assert (coco.annToMask(ann) == mask).all()
                    assert ann['category_id'] == label + 1
                    assert ann['area'] == mask.sum()
                    assert ann['iscrowd'] == 0
                    x, y, width, height = map(int, ann['bbox'])
                    inside = mask[y : y + height, x : x + width]
                    assert inside.sum() == mask.sum()
                    assert inside[0].any() and inside[-1].any()
                    assert inside[:, 0].any() and inside[:, -1].any()

    def test_label_maps_equal_masks(self, folder):
        for index in range(SETTINGS['num_val']):
            labels = read_png(folder / 'labels' / 'val' / f'{index:06d}.png')
            scene = make_scene(index, seed=1000005, size=96)
            assert labels.dtype == np.uint8
            assert (labels == scene.label_map()).all()

    def test_no_held_out_scene_is_a_training_scene(self, folder):
        train, val = (
            {
                path.read_bytes()
                for path in (folder / 'images' / split).iterdir()
            }
            for split in ('train', 'val')
        )
        assert not train & val

    def test_scenes_do_not_depend_on_how_many_there_are(
        self, folder, tmp_path
    ):
        make_shapes(tmp_path / 'more', **{**SETTINGS, 'num_train': 6})
        few = files_of(folder / 'images' / 'train')
        more = files_of(tmp_path / 'more' / 'images' / 'train')
        assert len(more) == 6
        assert few.items() <= more.items()

    def test_same_settings_are_re_used(self, folder):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
        assert not make_shapes(folder, **SETTINGS)
        after = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
        assert before == after

    def test_other_settings_are_refused(self, folder):
        before = files_of(folder)
        with pytest.raises(FileExistsError, match='seed is 5, asked for 6'):
            make_shapes(folder, **{**SETTINGS, 'seed': 6})
        assert files_of(folder) == before

    def test_overwrite(self, tmp_path):
        out = tmp_path / 'data'
        make_shapes(out, **SETTINGS)
        assert make_shapes(out, overwrite=True, **{**SETTINGS, 'num_val': 1})
        assert len(list((out / 'images' / 'val').iterdir())) == 1
        assert [path.name for path in tmp_path.iterdir()] == ['data']

    @pytest.mark.parametrize('overwrite', [False, True])
    def test_foreign_folder_is_left_alone(self, tmp_path, overwrite):
        (tmp_path / 'thesis.tex').write_text('years of work')
        with pytest.raises(FileExistsError, match='not made by this gen'):
            make_shapes(tmp_path, overwrite=overwrite, **SETTINGS)
        assert (tmp_path / 'thesis.tex').read_text() == 'years of work'

    def test_nothing_is_left_of_a_failed_run(self, tmp_path, monkeypatch):
        def fail(path, pixels):
            raise OSError('disk full')

        monkeypatch.setattr(shapes_folder, '_write_png', fail)
        with pytest.raises(OSError, match='disk full'):
            make_shapes(tmp_path / 'data', **SETTINGS)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        'arguments, message',
        [
            (dict(num_train=0), 'num_train must be at least 1, but got 0'),
            (dict(num_val=-3), 'num_val must be at least 1, but got -3'),
            (dict(seed=4, val_seed=4), 'val_seed must differ from seed'),
            (dict(size=81), 'size=81'),
        ],
    )
    def test_bad_values(self, tmp_path, arguments, message):
        with pytest.raises(ValueError, match=message):
            make_shapes(tmp_path / 'data', **arguments)
        assert not list(tmp_path.iterdir())


class TestTool:
    tool = ROOT / 'tools' / 'dataset_converters' / 'make_shapes.py'

    def run(self, *arguments):
        return subprocess.run(
            [sys.executable, str(self.tool), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )

    def test_writes_what_the_function_writes(self, folder, tmp_path):
        out = tmp_path / 'data'
        done = self.run(
            out, '--num-train=4', '--num-val=3', '--size=96', '--seed=5'
        )
        assert done.returncode == 0, done.stderr
        assert files_of(out) == files_of(folder)

    def test_error_without_a_traceback(self, tmp_path):
        done = self.run(tmp_path / 'data', '--num-val=0')
        assert done.returncode != 0
        assert 'num_val must be at least 1, but got 0' in done.stderr
        assert 'Traceback' not in done.stderr


def test_configs_name_the_same_classes():
    base = ROOT / 'configs' / 'quickstart' / '_base_'
    instance = Config.fromfile(base / 'shapes_instance.py').metainfo
    semantic = Config.fromfile(base / 'shapes_semantic.py').metainfo
    assert tuple(instance.classes) == SHAPES_CLASSES
    assert [*map(tuple, instance.palette)] == SHAPES_PALETTE
    assert tuple(semantic.classes) == SHAPES_SEG_CLASSES
    assert [*map(tuple, semantic.palette)] == SHAPES_SEG_PALETTE


def test_settings_are_readable(folder):
    settings = json.loads((folder / 'shapes.json').read_text())
    assert settings['seed'] == 5
    assert settings['val_seed'] == 1000005

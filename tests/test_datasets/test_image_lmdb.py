"""Packing image folders: what is written, and what is refused."""

import runpy

import pytest

from mmmobilemamba.datasets import image_lmdb
from mmmobilemamba.datasets.image_lmdb import (
    list_folders,
    read_list,
    write_image_lmdb,
)

lmdb = pytest.importorskip('lmdb')

FILES = {'b/1.JPEG': b'one', 'a/2.png': b'two', 'a/x/3.jpg': b'three'}
SAMPLES = [('a/2.png', 0), ('a/x/3.jpg', 0), ('b/1.JPEG', 1)]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'train'
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / 'a' / 'notes.txt').write_text('no image')
    (root / 'loose.jpg').write_bytes(b'in no class')
    return str(root)


def content(path):
    with (
        lmdb.open(str(path), readonly=True, lock=False) as env,
        env.begin() as transaction,
    ):
        return {k.decode(): bytes(v) for k, v in transaction.cursor()}


def test_folders_are_listed_as_mmpretrain_does(folder):
    datasets = pytest.importorskip('mmpretrain.datasets')
    assert list_folders(folder) == SAMPLES
    theirs = datasets.CustomDataset(data_root=folder, pipeline=[])
    got = [(i['img_path'], i['gt_label']) for i in theirs.load_data_list()]
    assert got == [(f'{folder}/{name}', label) for name, label in SAMPLES]


@pytest.mark.parametrize('missing', [[], [('a/missing.png', 0)]])
def test_whole_or_not_at_all(missing, folder, tmp_path):
    samples = [*SAMPLES, *missing]

    def stop(items):
        yield items[0]
        raise KeyboardInterrupt

    with pytest.raises((FileNotFoundError, KeyboardInterrupt)):
        write_image_lmdb(
            folder, samples, str(tmp_path / 'out'), 'train', progress=stop
        )
    left = [p for p in tmp_path.glob('out/**/*') if p.is_file()]
    assert left == list(tmp_path.glob('out/*.lmdb')) == []


def test_every_file_arrives_and_is_replaced_only_if_asked(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(image_lmdb, '_COMMIT_EVERY', 2)
    out = str(tmp_path / 'out')
    write_image_lmdb(folder, SAMPLES, out, 'train')
    assert read_list(f'{out}/meta/train.txt') == SAMPLES
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {'train.lmdb', 'meta'}
    with pytest.raises(FileExistsError, match='--overwrite'):
        write_image_lmdb(folder, SAMPLES[:1], out, 'train')
    assert content(f'{out}/train.lmdb') == FILES
    write_image_lmdb(folder, SAMPLES[:1], out, 'train', overwrite=True)
    assert content(f'{out}/train.lmdb') == {'a/2.png': b'two'}
    assert read_list(f'{out}/meta/train.txt') == SAMPLES[:1]


@pytest.mark.parametrize(
    'name', ['/etc/passwd', 'a/../../b.png', 'a\\..\\b.png', 'ä.png']
)
def test_paths_stay_inside_and_are_keys(name, folder, tmp_path):
    with pytest.raises(ValueError, match='cannot be a key'):
        write_image_lmdb(folder, [(name, 0)], str(tmp_path / 'out'), 'train')


@pytest.mark.parametrize(
    ('text', 'line'), [('a.png 0\nb.png cat', 2), ('a.png 0\na.png 1', 2)]
)
def test_bad_lists(text, line, tmp_path):
    (tmp_path / 'train.txt').write_text(f'{text}\n')
    with pytest.raises(ValueError, match=f'train.txt:{line}'):
        read_list(str(tmp_path / 'train.txt'))


def test_command_looks_at_all_before_it_packs(folder, tmp_path, repo, capsys):
    """Packing takes hours; what is missing is said at once."""
    path = repo / 'tools/dataset_converters/imagenet_to_lmdb.py'
    tool = runpy.run_path(str(path))
    out = tmp_path / 'out'
    with pytest.raises(SystemExit) as ended:
        tool['main']([str(tmp_path), str(out)])
    assert ended.value.code == 2
    assert f'{tmp_path / "val"} does not exist' in capsys.readouterr().err
    assert not out.exists()
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/val.txt').write_text('a b/c d.png 7\n')
    (tmp_path / 'val/a b').mkdir(parents=True)
    (tmp_path / 'val/a b/c d.png').write_bytes(b'spaces')
    tool['main']([str(tmp_path), str(out)])
    assert content(out / 'train.lmdb') == FILES
    assert content(out / 'val.lmdb') == {'a b/c d.png': b'spaces'}
    with pytest.raises(SystemExit):
        tool['main']([str(tmp_path), str(out), '--splits', 'val'])

"""Packing image folders: what is written, and what is refused."""

import runpy

import pytest

from mmmobilemamba.datasets.image_lmdb import pack_images

lmdb = pytest.importorskip('lmdb')
pytest.importorskip('mmpretrain')

FILES = {'a/2.png': b'two', 'a/x/3.jpg': b'three', 'b/1.JPEG': b'one'}


@pytest.fixture
def source(tmp_path):
    """Training images in folders, and held-out ones in a list."""
    for name, data in FILES.items():
        path = tmp_path / 'train' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / 'train/a/notes.txt').write_text('no image')
    (tmp_path / 'train/loose.jpg').write_bytes(b'in no class')
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/val.txt').write_text('a b/c d.png 7\n')
    (tmp_path / 'val/a b').mkdir(parents=True)
    (tmp_path / 'val/a b/c d.png').write_bytes(b'spaces')
    return tmp_path


def content(path):
    with (
        lmdb.open(str(path), readonly=True, lock=False) as env,
        env.begin() as transaction,
    ):
        return {k.decode(): bytes(v) for k, v in transaction.cursor()}


def test_every_file_arrives_and_nothing_is_replaced(source, repo, capsys):
    path = repo / 'tools/dataset_converters/imagenet_to_lmdb.py'
    main = runpy.run_path(str(path))['main']
    out = source / 'out'
    main([str(source), str(out)])
    assert 'train.lmdb: 3 images of 2 classes' in capsys.readouterr().out
    assert content(out / 'train.lmdb') == FILES
    text = (out / 'meta/train.txt').read_text()
    assert text == 'a/2.png 0\na/x/3.jpg 0\nb/1.JPEG 1\n'
    assert content(out / 'val.lmdb') == {'a b/c d.png': b'spaces'}
    assert (out / 'meta/val.txt').read_text() == 'a b/c d.png 7\n'
    assert len([*out.iterdir()]) == 3
    with pytest.raises(SystemExit):
        main([str(source), str(out)])
    assert 'train.lmdb' in capsys.readouterr().err


@pytest.mark.parametrize(
    'line', ['missing.png 0', '/etc/passwd 0', 'ä.png 0', 'a.png cat', 'a.png']
)
def test_all_is_looked_at_before_it_is_packed(source, line):
    """Packing takes hours; what is wrong is said at once."""
    (source / 'val/ä.png').touch()
    (source / 'meta/val.txt').write_text(f'a b/c d.png 7\n{line}\n')
    with pytest.raises((OSError, ValueError)):
        next(pack_images(source, source / 'out'))
    assert not (source / 'out').exists()


def test_whole_or_not_at_all(source):
    def stop(items, split):
        yield next(iter(items))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(pack_images(source, source / 'out', progress=stop))
    assert [path.name for path in source.glob('out/*')] == ['meta']
    assert not [*source.glob('out/meta/*')]

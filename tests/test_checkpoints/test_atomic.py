"""A file is written whole, or what was there stays."""

import pytest

from mmmobilemamba.checkpoints.atomic import atomic_write, remove_drafts


def test_file_appears_in_a_new_folder_with_nothing_beside_it(tmp_path):
    path = tmp_path / 'new' / 'table.md'
    with atomic_write(path) as draft:
        draft.write_text('rows')
        assert draft.suffix == '.md'
        assert not path.exists()
    assert path.read_text() == 'rows'
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / 'plain').touch()
    assert path.stat().st_mode == (tmp_path / 'plain').stat().st_mode


def test_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / 'table.md'
    path.write_text('old')
    with pytest.raises(RuntimeError), atomic_write(path) as draft:
        draft.write_text('half')
        raise RuntimeError
    # A process that is killed does not come to the end.
    killed = atomic_write(path)
    killed.__enter__().write_text('half')
    assert remove_drafts(tmp_path) == ['table.md']
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]

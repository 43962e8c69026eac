"""A run over many models goes on where it ended, and says what failed."""

import pytest

pytest.importorskip('onnxruntime')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

from mmmobilemamba.deploy import survey  # noqa: E402


@pytest.fixture
def done(monkeypatch):
    """Give the models that are exported, each in this process."""
    names = []

    def check(job, folder, keep):
        names.append(job.name)
        return survey.check_export(job, folder, keep)

    monkeypatch.setattr(survey, 'check_in_process', check)
    return names


def test_goes_on_where_it_ended(workspace, tool, done, tmp_path, capsys):
    main = tool('deploy/check_exports').main
    common = ['--out-dir', str(tmp_path), '--size', '96', '96']
    main([str(workspace / 'cls.py'), *common])
    main([str(workspace / 'cls.py'), str(workspace / 'seg.py'), *common])
    assert done == ['cls', 'seg']
    table = (tmp_path / 'exports.md').read_text()
    assert table in capsys.readouterr().out
    titles, _, *rows = table.splitlines()
    assert 'relative error' in titles and len(rows) == 2
    assert rows[1].startswith('| seg | 96x96 | ')
    assert not list(tmp_path.glob('*.onnx'))
    # Other weights are another result.
    main([str(workspace / 'cls.py'), '--seed', '1', '--keep', *common])
    assert done == ['cls', 'seg', 'cls']
    assert (tmp_path / 'cls.onnx').is_file()


def test_a_failure_is_no_end_of_the_others(
    workspace, tool, done, monkeypatch, tmp_path, capsys
):
    export_model = survey.export_model

    def fail(model, kind, *args):
        if kind == 'classifier':
            raise ValueError('it does not agree')
        return export_model(model, kind, *args)

    monkeypatch.setattr(survey, 'export_model', fail)
    models = [str(workspace / name) for name in ('cls.py', 'seg.py')]
    options = ['--out-dir', str(tmp_path), '--size', '96', '96']
    with pytest.raises(SystemExit) as ended:
        tool('deploy/check_exports').main([*models, *options])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert 'it does not agree' in said.err
    assert '1 of 2 models failed: cls' in said.err
    assert '| seg |' in said.out and '| cls |' not in said.out


def test_process_of_its_own(workspace, tmp_path):
    job = survey.Job(str(workspace / 'cls.py'), size=(64, 64))
    row = survey.check_in_process(job, tmp_path, False)
    assert row == survey.finished(job, tmp_path)
    assert row.error < 1e-4 and row.memory_gb > 0.1


@pytest.mark.parametrize(
    ('args', 'named'),
    [
        (['--opset', '16'], '17 to 21'),
        (['--size', '16', '64'], '16x64'),
        (['none.py'], 'none.py does not exist'),
        (['cls.py', 'cls.py'], 'cls is given twice'),
        (['cls.py=none.pth'], 'none.pth'),
    ],
)
def test_bad_input_is_named_before_the_work(
    workspace, tool, done, monkeypatch, capsys, args, named
):
    monkeypatch.chdir(workspace)
    with pytest.raises(SystemExit) as ended:
        tool('deploy/check_exports').main(args)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err
    assert not done

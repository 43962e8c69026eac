import pytest

from mmmobilemamba.apis import environment as env


@pytest.fixture
def report(tool, capsys):
    def call():
        tool('collect_env').main([])
        return capsys.readouterr().out

    return call


def test_names_versions_and_backend(report, monkeypatch):
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'parallel')
    said = report()
    assert 'parallel, chosen by MMMOBILEMAMBA_SCAN' in said
    for name in ('torch', 'mmengine', 'mmcv operators', 'nvcc', 'Python'):
        assert f'\n{name} ' in said


def test_missing_library_comes_with_its_command(report, monkeypatch):
    real = env.importlib.import_module

    def without_mmdet(name):
        if name == 'mmdet':
            raise ModuleNotFoundError('gone', name='mmdet')
        return real(name)

    monkeypatch.setattr(env.importlib, 'import_module', without_mmdet)
    said = report()
    assert 'mmdet is missing:\n  pip install mmdet==3.3.0' in said


def test_library_that_breaks_says_why(report, monkeypatch):
    real = env.importlib.import_module

    def torchvision_of_another_torch(name):
        if name == 'torchvision':
            raise RuntimeError('operator torchvision::nms does not exist')
        return real(name)

    monkeypatch.setattr(
        env.importlib, 'import_module', torchvision_of_another_torch
    )
    assert 'torchvision::nms does not exist' in report()


def test_wrong_backend_does_not_stop_the_report(report, monkeypatch):
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'fast')
    said = report()
    assert "MMMOBILEMAMBA_SCAN='fast'" in said
    assert 'unset MMMOBILEMAMBA_SCAN' in said


def test_toolkit_of_another_version(monkeypatch):
    monkeypatch.setattr(env.torch.version, 'cuda', '13.0')
    fault, command = env._toolkit_mismatch('12.4, /usr/bin/nvcc')
    assert '12.4' in fault
    assert 'cuda-13.0' in command
    assert env._toolkit_mismatch('13.1, /usr/bin/nvcc') is None
    assert env._toolkit_mismatch('none') is None

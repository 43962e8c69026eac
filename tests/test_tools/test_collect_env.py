import importlib
from types import SimpleNamespace

import pytest

from mmmobilemamba.apis import environment as env


def test_names_versions_faults_and_cures(tool, capsys, monkeypatch):
    def fake(name):
        if name == 'pycocotools':
            raise ModuleNotFoundError('gone', name=name)
        if name == 'torchvision':
            raise RuntimeError('operator torchvision::nms does not exist')
        return importlib.import_module(name)

    monkeypatch.setattr(env, 'importlib', SimpleNamespace(import_module=fake))
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'fast')
    tool('collect_env').main([])
    said = capsys.readouterr().out
    for name in ('torch', 'mmengine', 'mmcv operators', 'nvcc', 'Python'):
        assert f'\n{name} ' in said
    assert 'pycocotools is missing:\n  pip install pycocotools' in said
    assert 'torchvision::nms does not exist' in said
    # A wrong backend does not stop the report.
    assert 'unset MMMOBILEMAMBA_SCAN' in said


@pytest.mark.parametrize(
    ('nvcc', 'fits'),
    [('12.4, /usr/bin/nvcc', False), ('13.1, nvcc', True), ('none', True)],
)
def test_toolkit_of_another_version(monkeypatch, nvcc, fits):
    monkeypatch.setattr(env.torch.version, 'cuda', '13.0')
    fault = env._toolkit_mismatch(nvcc)
    assert (fault is None) == fits
    assert fits or 'cuda-13.0' in fault[1]

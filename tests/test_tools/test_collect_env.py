"""The report names versions, faults and cures."""

import importlib
from types import SimpleNamespace

from mmmobilemamba.apis import environment


def test_names_versions_faults_and_cures(tool, capsys, monkeypatch):
    def fake(name):
        if name == 'torchvision':
            raise RuntimeError('operator nms does not exist')
        return importlib.import_module(name)

    module = SimpleNamespace(import_module=fake)
    monkeypatch.setattr(environment, 'importlib', module)
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'fast')
    tool('collect_env').main([])
    said = capsys.readouterr().out
    assert all(f'\n{name} ' in said for name in ('Python', 'mmdet'))
    assert 'nms does not exist:\n  pip install torchvision==' in said
    # A wrong backend does not stop the report.
    assert 'unset MMMOBILEMAMBA_SCAN' in said

import importlib
from types import SimpleNamespace

from mmmobilemamba.apis import environment


def test_names_versions_faults_and_cures(tool, capsys, monkeypatch):
    def fake(name):
        if name == 'torchvision':
            raise RuntimeError('operator torchvision::nms does not exist')
        return importlib.import_module(name)

    fake_importlib = SimpleNamespace(import_module=fake)
    monkeypatch.setattr(environment, 'importlib', fake_importlib)
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'fast')
    tool('collect_env').main([])
    said = capsys.readouterr().out
    for name in ('PyTorch', 'mmdet', 'CUDA of mmcv', 'Python'):
        assert f'\n{name} ' in said
    assert 'nms does not exist:\n  pip install torchvision==' in said
    # A wrong backend does not stop the report.
    assert 'unset MMMOBILEMAMBA_SCAN' in said

import importlib
from types import SimpleNamespace

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
    for name in (
        'torch',
        'mmengine',
        'scan backend',
        'CUDA of mmcv',
        'Python',
    ):
        assert f'\n{name} ' in said
    assert 'pycocotools is missing:\n  pip install pycocotools' in said
    assert 'torchvision::nms does not exist' in said
    # A wrong backend does not stop the report.
    assert 'unset MMMOBILEMAMBA_SCAN' in said

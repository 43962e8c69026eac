"""Two runs with ``--deterministic`` are the same run."""

import pytest
import torch

from mmmobilemamba.checkpoints.checkpoint import read_checkpoint

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmcv._ext', reason='mmcv has no operators')


@pytest.fixture(autouse=True)
def leave_no_trace(monkeypatch):
    # Set, so that what the tool sets is undone.
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    benchmark = cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic, cudnn.benchmark = False, benchmark


@pytest.mark.skipif(
    torch.cuda.is_available(), reason='RoIAlign adds in any order on a GPU'
)
@pytest.mark.parametrize(
    'name', [pytest.param('det', marks=pytest.mark.slow), 'seg']
)
def test_equal_bits(name, workspace, tool, tmp_path):
    """Two threads; the config has no seed; a process of its own loads."""
    torch.set_num_threads(2)
    states = []
    for run in ('first', 'second'):
        args = [str(workspace / f'{name}.py'), '--deterministic']
        args += ['--work-dir', str(tmp_path / run), '--cfg-options']
        args += ['val_dataloader=None', 'val_cfg=None', 'val_evaluator=None']
        tool('train').main([*args, 'train_dataloader.num_workers=1'])
        (path,) = (tmp_path / run).glob('*.pth')
        states.append(read_checkpoint(path))
    first, second = states
    assert first['meta']['seed'] == second['meta']['seed'] == 0
    for key, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][key]), key

"""The CUDA kernels' own source, compiled for the CPU and run there.

Threads, barriers and shuffles are emulated, so that indices, chunks, carries
and partial sums are tested where no GPU is.
"""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import selective_scan as ss
import torch
from scan_cases import assert_close, fused_case, plain_case, run_with_grads

HERE = Path(__file__).resolve().parent
SHORT, MIDDLE, LONG = range(3)


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    """Compile the kernels for the CPU."""
    compiler = shutil.which('c++')
    if compiler is None or not sys.platform.startswith('linux'):
        pytest.skip('needs c++ on Linux')
    target = tmp_path_factory.mktemp('cuda_on_cpu') / 'run_kernels.so'
    source = HERE / 'cuda_on_cpu' / 'run_kernels.cpp'
    if not (HERE.parent / 'csrc').is_dir():
        pytest.skip('needs the source tree')
    subprocess.run(
        [compiler, '-std=c++17', '-O1', '-Wall', '-Wextra', '-Werror']
        + ['-shared', '-fPIC', str(source), '-o', str(target)],
        check=True,
    )
    return ctypes.CDLL(str(target))


def _strides(tensor, count):
    return [0] * count if tensor is None else list(tensor.stride())


def _run(library, case, grad, layout, softplus=True, reverse=False):
    """Run forward and backward; return y and the gradients by name."""
    fused = 'proj' in case
    u, A = case['u'], case['A']
    batch, channels, length = u.shape
    state = A.shape[-1]
    none = u.new_empty(0)
    if fused:
        proj, dt_proj = case['proj'], case['dt_proj']
        directions, _, rank = dt_proj.shape
        groups, delta = 1, None
        dt, B, C = proj.split([rank, state, state], dim=2)
        bias = case['dt_bias']
    else:
        directions, rank, dt_proj, dt = 1, 0, None, None
        groups, delta = case['B'].shape[1], case['delta']
        B, C, bias = case['B'], case['C'], case.get('delta_bias')
    blocks, chunk = ctypes.c_int64(), ctypes.c_int64()
    library.layout_sizes(
        ctypes.c_int64(channels),
        ctypes.c_int64(groups),
        layout,
        ctypes.byref(blocks),
        ctypes.byref(chunk),
    )
    chunks = -(-length // chunk.value)
    sets, rows = directions * groups, rank + 2 * state
    out = dict(
        y=torch.full_like(u, float('nan')),
        u=torch.full_like(u, float('nan')),
        delta=none if fused else torch.full_like(delta, float('nan')),
        rows=A.new_full(
            (blocks.value, batch, sets, rows, length), float('nan')
        ),
        parameters=A.new_zeros(batch, directions, channels, rank + state + 2),
    )
    if not fused:  # a block of channels writes its own group's rows only
        out['rows'].zero_()
    carries = [
        A.new_zeros(slots * directions, batch, chunks, state, channels)
        for slots in (1, 2)
    ]
    for backward in (False, True):
        tensors = [u, delta, dt, B, C, grad, A, case.get('D'), bias, dt_proj]
        tensors += [out['y'], out['u'], None if fused else out['delta']]
        tensors += [out['rows'], out['parameters'], carries[backward]]
        pointers = [0 if x is None else x.data_ptr() for x in tensors]
        strides = _strides(u, 3) + _strides(delta, 3) + _strides(grad, 3)
        strides += _strides(dt, 4) + _strides(B, 4) + _strides(C, 4)
        strides += _strides(out['y'], 3) + _strides(out['u'], 3)
        strides += _strides(None if fused else out['delta'], 3)
        sizes = [batch, channels, length, state, rank, directions, groups]
        sizes += [softplus, reverse, layout, u.dtype == torch.float64]
        sizes += [backward]
        library.run_scan(
            (ctypes.c_int64 * len(sizes))(*map(int, sizes)),
            (ctypes.c_void_p * len(pointers))(*pointers),
            (ctypes.c_int64 * len(strides))(*strides),
        )
    summed = out['rows'].sum(0)
    parameters = out['parameters'].sum(0)
    grads = dict(y=out['y'], u=out['u'])
    if fused:
        grads.update(
            proj=summed,
            dt_proj=parameters[..., :rank],
            A=parameters[..., rank : rank + state],
            D=parameters[..., -2],
            dt_bias=parameters[..., -1],
        )
        return grads
    grads.update(
        delta=out['delta'],
        A=parameters[0, :, :state],
        B=summed[:, :, :state],
        C=summed[:, :, state:],
    )
    if 'D' in case:
        grads['D'] = parameters[0, :, -2]
    if bias is not None:
        grads['delta_bias'] = parameters[0, :, -1]
    return grads


def _compare(library, case, layout, **flags):
    dtype = case['u'].dtype
    generator = torch.Generator().manual_seed(7)
    grad = torch.randn(case['u'].shape, generator=generator).to(dtype)
    grad = torch.empty_like(case['u']).copy_(grad)
    actual = _run(library, case, grad, layout, **flags)
    exact = {k: v.detach().double() for k, v in case.items()}
    if 'proj' in case:
        reference = ss.bidirectional_scan_reference
    else:
        reference = ss.selective_scan_reference
        flags['delta_softplus'] = flags.pop('softplus', True)
    expected = run_with_grads(reference, exact, grad.double(), **flags)
    for name, value in actual.items():
        assert_close(value, expected[name], dtype, name)


@pytest.mark.parametrize('layout', [SHORT, MIDDLE, LONG])
@pytest.mark.parametrize('memory', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_one_chunk(library, layout, memory, dtype):
    """Lengths and channels that fill a chunk and a block only in part."""
    length = {SHORT: 13, MIDDLE: 49, LONG: 196}[layout]
    channels = {SHORT: 140, MIDDLE: 35, LONG: 19}[layout]
    case = fused_case(2, channels, length, rank=3, dtype=dtype, layout=memory)
    _compare(library, case, layout)


@pytest.mark.parametrize('directions', [1, 2])
@pytest.mark.parametrize('layout', [MIDDLE, LONG])
def test_many_chunks(library, layout, directions):
    """States and their gradients are carried from chunk to chunk."""
    length = {MIDDLE: 130, LONG: 600}[layout]
    case = fused_case(1, 5, length, state=2, rank=2, directions=directions)
    _compare(library, case, layout)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('layout', [SHORT, MIDDLE, LONG])
def test_plain_scan_with_groups(library, layout, reverse):
    case = plain_case(2, 12, 37, state=3, groups=4)
    _compare(library, case, layout, reverse=reverse)


def test_plain_scan_without_optional_arguments(library):
    case = plain_case(1, 6, 70, optional=False)
    case['delta'] = case['delta'].abs() * 0.3
    _compare(library, case, MIDDLE, softplus=False)


def test_more_rank_rows_than_shared_memory_holds(library):
    case = fused_case(1, 3, 40, rank=40)
    _compare(library, case, LONG)

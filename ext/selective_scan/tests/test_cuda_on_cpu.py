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
from scan_cases import TOLERANCE, fused_case, plain_case, run_with_grads
from torch.utils.cpp_extension import include_paths

HERE = Path(__file__).resolve().parent
SHORT, MIDDLE, LONG = range(3)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope='module')
def build(tmp_path_factory):
    """Compile kernels for the CPU."""
    compiler = shutil.which('c++')
    if compiler is None or not sys.platform.startswith('linux'):
        pytest.skip('needs c++ on Linux')
    if not (HERE.parent / 'csrc').is_dir():
        pytest.skip('needs the source tree')
    flags = ['-std=c++17', '-O1', '-shared', '-fPIC']
    flags += ['-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas']
    for path in include_paths():
        flags += ['-isystem', path]

    def compile_source(name):
        source = HERE / 'cuda_on_cpu' / f'{name}.cpp'
        target = tmp_path_factory.mktemp('cuda_on_cpu') / f'{name}.so'
        subprocess.run(
            [compiler, *flags, str(source), '-o', str(target)], check=True
        )
        return ctypes.CDLL(str(target))

    return compile_source


@pytest.fixture(scope='module')
def general(build):
    return build('run_kernels')


@pytest.fixture(scope='module')
def bidirectional(build):
    return build('run_bidirectional')


def _integers(values):
    return (ctypes.c_int64 * len(values))(*map(int, values))


def _pointers(tensors):
    values = [0 if x is None else x.data_ptr() for x in tensors]
    return (ctypes.c_void_p * len(values))(*values)


def _strides(tensor, count):
    return [0] * count if tensor is None else list(tensor.stride())


def _run_general(library, case, grad, layout, softplus=True, reverse=False):
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
        strides = _strides(u, 3) + _strides(delta, 3) + _strides(grad, 3)
        strides += _strides(dt, 4) + _strides(B, 4) + _strides(C, 4)
        strides += _strides(out['y'], 3) + _strides(out['u'], 3)
        strides += _strides(None if fused else out['delta'], 3)
        sizes = [batch, channels, length, state, rank, directions, groups]
        sizes += [softplus, reverse, layout, u.dtype == torch.float64]
        sizes += [backward]
        library.run_scan(
            _integers(sizes), _pointers(tensors), _integers(strides)
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


def _run_bidirectional(library, case, grad, multiprocessors, shared):
    """Run forward and backward of the kernels for one state.

    Returns:
        tuple: y and the gradients by name, and the number of chunks.
    """
    u, proj = case['u'], case['proj']
    batch, channels, length = u.shape
    directions, _, rank = case['dt_proj'].shape
    last = u.stride(1) == 1 and u.stride(2) != 1
    out = {
        name: torch.full_like(case[key], float('nan'))
        for name, key in dict(y='u', **{k: k for k in case}).items()
    }
    paired = proj.stride(2) == 1 and rank % 2 == 0
    paired = paired and all(proj.stride(k) % 2 == 0 for k in (0, 1, 3))
    sizes = [batch, channels, length, rank, directions, last]
    sizes += [multiprocessors, shared]
    for x in (u, grad):
        sizes += [x.stride(0), x.stride(2 if last else 1)]
    # The gradient lies as proj does, where proj is dense.
    out['proj'] = torch.empty_strided(
        proj.shape, proj.stride(), dtype=proj.dtype
    ).fill_(float('nan'))
    sizes += [*proj.stride(), paired]
    parameters = [case[k] for k in ('dt_proj', 'dt_bias', 'A', 'D')]
    tensors = [u, proj, *parameters, grad, out['y'], out['u'], out['proj']]
    tensors += [out[k] for k in ('dt_proj', 'dt_bias', 'A', 'D')]
    chunks = library.run_bidirectional(
        DTYPES.index(u.dtype), _integers(sizes), _pointers(tensors)
    )
    return out, chunks


def _assert_close(actual, expected, name):
    """Compare norms: 1e-6 for float32, the table for the other types."""
    assert actual.isfinite().all(), f'{name}: not finite'
    tolerance = 1e-6 if actual.dtype == torch.float32 else None
    tolerance = tolerance or TOLERANCE[actual.dtype]
    error = (actual.double() - expected).norm()
    error = (error / expected.norm().clamp_min(1e-6)).item()
    assert error <= tolerance, f'{name}: error {error:.2e}'


def _expect(case, grad, **flags):
    exact = {k: v.detach().double() for k, v in case.items()}
    reference = ss.selective_scan_reference
    if 'proj' in case:
        reference = ss.bidirectional_scan_reference
    return run_with_grads(reference, exact, grad.double(), **flags)


def _make_grad(u):
    generator = torch.Generator().manual_seed(7)
    grad = torch.randn(u.shape, generator=generator).to(u.dtype)
    return torch.empty_like(u).copy_(grad)


def _compare_bidirectional(
    library, case, multiprocessors=132, shared=232448, chunks=None
):
    grad = _make_grad(case['u'])
    actual, used = _run_bidirectional(
        library, case, grad, multiprocessors, shared
    )
    assert chunks is None or used == chunks
    expected = _expect(case, grad)
    for name, value in actual.items():
        _assert_close(value, expected[name], name)


def _compare_general(library, case, layout, softplus=True, reverse=False):
    grad = _make_grad(case['u'])
    actual = _run_general(library, case, grad, layout, softplus, reverse)
    flags = {}
    if 'proj' not in case:
        flags = dict(delta_softplus=softplus, reverse=reverse)
    expected = _expect(case, grad, **flags)
    for name, value in actual.items():
        _assert_close(value, expected[name], name)


# Lengths around runs, warps and chunks; channels around pairs and blocks;
# ranks of each instance.
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize(
    'channels, length, rank, chunks',
    [
        (2, 1, 1, 1),
        (34, 2, 10, 1),
        (544, 15, 16, 1),
        (320, 16, 10, 1),
        (66, 17, 17, 1),
        (544, 63, 17, 1),
        (32, 64, 16, 1),
        (34, 65, 40, 1),
        (64, 127, 10, 1),
        (34, 128, 1, 1),
        (48, 129, 16, 1),
        (34, 255, 40, 1),
        (320, 256, 10, 1),
        (48, 257, 17, 5),
        (34, 1050, 16, 17),
        (34, 4200, 10, 66),
    ],
)
def test_lengths_channels_and_ranks(
    bidirectional, layout, channels, length, rank, chunks
):
    case = fused_case(2, channels, length, rank=rank, layout=layout)
    if length > 1000:
        case['u'], case['proj'] = case['u'][:1], case['proj'][:1]
    _compare_bidirectional(bidirectional, case, chunks=chunks)


@pytest.mark.parametrize(
    'channels, length, rank', [(1, 1, 1), (31, 257, 10), (33, 16, 16)]
)
def test_odd_channels(bidirectional, channels, length, rank):
    """The last pair of channels is half empty."""
    case = fused_case(2, channels, length, rank=rank)
    _compare_bidirectional(bidirectional, case)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', DTYPES[1:])
@pytest.mark.parametrize('rank', [10, 16, 40])
def test_types_of_16_bits(bidirectional, dtype, layout, rank):
    case = fused_case(1, 66, 300, rank=rank, dtype=dtype, layout=layout)
    _compare_bidirectional(bidirectional, case, chunks=5)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('length', [40, 300])
def test_one_direction(bidirectional, layout, length):
    case = fused_case(2, 34, length, rank=10, directions=1, layout=layout)
    _compare_bidirectional(bidirectional, case)


def test_long_chunks_where_blocks_abound(bidirectional):
    case = fused_case(8, 32, 700, rank=2)
    _compare_bidirectional(bidirectional, case, multiprocessors=1, chunks=6)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_little_shared_memory_makes_short_chunks(bidirectional, layout):
    case = fused_case(1, 34, 200, rank=64, layout=layout)
    _compare_bidirectional(bidirectional, case, shared=49152, chunks=7)


def test_slices_are_read_in_place(bidirectional):
    """Channels of a wider map, and tokens-first rows beside dense ones."""
    case = fused_case(2, 34, 70, rank=10, layout='channels_last')
    wide = torch.full((2, 70, 80), float('nan'))
    wide[..., 40:74] = case['u'].mT
    case['u'] = wide[..., 40:74].mT
    case['proj'] = case['proj'].contiguous()
    _compare_bidirectional(bidirectional, case)
    case['u'] = case['u'].contiguous()
    rows = torch.full((2, 70, 2, 15), float('nan'))  # odd: one row at a time
    rows[..., 2:-1] = case['proj'].permute(0, 3, 1, 2)
    case['proj'] = rows[..., 2:-1].permute(0, 2, 3, 1)
    _compare_bidirectional(bidirectional, case)


@pytest.mark.parametrize('layout', [SHORT, MIDDLE, LONG])
@pytest.mark.parametrize('memory', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_general_kernel_in_one_chunk(general, layout, memory, dtype):
    """Lengths and channels that fill a chunk and a block only in part."""
    length = {SHORT: 13, MIDDLE: 49, LONG: 196}[layout]
    channels = {SHORT: 140, MIDDLE: 35, LONG: 19}[layout]
    case = fused_case(2, channels, length, 2, 3, dtype=dtype, layout=memory)
    _compare_general(general, case, layout)


@pytest.mark.parametrize('directions', [1, 2])
@pytest.mark.parametrize('layout', [MIDDLE, LONG])
def test_general_kernel_in_many_chunks(general, layout, directions):
    """States and their gradients are carried from chunk to chunk."""
    length = {MIDDLE: 130, LONG: 600}[layout]
    case = fused_case(1, 5, length, state=8, rank=2, directions=directions)
    _compare_general(general, case, layout)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('layout', [SHORT, MIDDLE, LONG])
def test_plain_scan_with_groups(general, layout, reverse):
    case = plain_case(2, 12, 37, state=3, groups=4)
    _compare_general(general, case, layout, reverse=reverse)


def test_plain_scan_without_optional_arguments(general):
    case = plain_case(1, 6, 70, optional=False)
    case['delta'] = case['delta'].abs() * 0.3
    _compare_general(general, case, MIDDLE, softplus=False)


def test_general_kernel_with_more_rows_than_shared_memory_holds(general):
    case = fused_case(1, 3, 40, state=2, rank=40)
    _compare_general(general, case, LONG)

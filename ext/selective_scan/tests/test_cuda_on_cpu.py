"""The CUDA kernels' own source, compiled for the CPU and run there.

Threads, barriers and shuffles are emulated, so that indices, chunks, carries
and partial sums are tested where no GPU is. Results start as NaN, and so does
the emulated shared memory.
"""

import ctypes
import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import (
    MAP_LAYOUTS,
    TOKEN_LAYOUTS,
    TOLERANCE,
    check,
    fused_case,
    norm_case,
    plain_case,
    wavelet_case,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.cpp_extension import include_paths, library_paths

HERE = Path(__file__).resolve().parent
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
FILES = dict(wavelet='around', gated_norm='around')
ROOM = 232448  # bytes of shared memory that a block of an H100 may have


class Tensor(ctypes.Structure):
    """Address and strides, as the kernels' C interface takes them."""

    _fields_ = [('data', ctypes.c_void_p), ('strides', ctypes.c_int64 * 4)]

    def __init__(self, tensor):
        if tensor is not None:
            super().__init__(tensor.data_ptr(), tensor.stride()[:4])


@pytest.fixture(scope='module')
def build(tmp_path_factory):
    """Give what compiles a source of cuda_on_cpu and returns the library."""
    compiler = shutil.which('c++')
    if compiler is None or not sys.platform.startswith('linux'):
        pytest.skip('needs c++ on Linux')
    if not (HERE.parent / 'csrc').is_dir():
        pytest.skip('needs the source tree')
    command = [compiler, '-std=c++17', '-O1', '-shared', '-fPIC']
    command += ['-U_FORTIFY_SOURCE']  # which takes jumps between stacks amiss
    command += ['-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas']
    abi = int(torch.compiled_with_cxx11_abi())
    command += [f'-D_GLIBCXX_USE_CXX11_ABI={abi}']
    for path in include_paths():
        command += ['-isystem', path]
    libraries = [f'-L{path}' for path in library_paths()]
    libraries += ['-ltorch_cpu', '-lc10']

    @functools.cache
    def build(name):
        source = HERE / 'cuda_on_cpu' / f'{name}.cpp'
        target = tmp_path_factory.mktemp('cuda_on_cpu') / f'{name}.so'
        subprocess.run(
            [*command, str(source), '-o', str(target), *libraries], check=True
        )
        return target

    return build


@pytest.fixture(scope='module')
def kernels(build):
    """Give what runs the kernels of an operator.

    It takes the operator's name, the input's type, sizes and tensors.
    """

    def call(name, dtype, sizes, tensors):
        library = ctypes.CDLL(str(build(f'run_{FILES.get(name, name)}')))
        return getattr(library, f'run_{name}')(
            TYPES.index(dtype),
            (ctypes.c_int64 * len(sizes))(*map(int, sizes)),
            (Tensor * len(tensors))(*map(Tensor, tensors)),
        )

    return call


def nan_like(*tensors):
    return [torch.full_like(tensor, float('nan')) for tensor in tensors]


def channels_adjoin(x):
    return x.stride(1) == 1 and x.stride(2) != 1


def assert_norms_close(actual, expected, dtype, name):
    """Compare norms: 1e-6 for float32, the table for the other types."""
    assert actual.isfinite().all(), f'{name}: not finite'
    tolerance = 1e-6 if actual.dtype == torch.float32 else TOLERANCE[dtype]
    error = (actual.double() - expected).norm()
    error = (error / expected.norm().clamp_min(1e-6)).item()
    assert error <= tolerance, f'{name}: error {error:.2e}'


def check_bidirectional(
    kernels, case, multiprocessors=132, shared=ROOM, chunks=None
):
    """Check the kernels for one state; how many chunks they make, too."""

    def run(_, case, grad):
        u, proj, dt_proj, *_ = case.values()
        rank = dt_proj.shape[2]
        paired = proj.stride(2) == 1 and rank % 2 == 0
        paired = paired and all(proj.stride(k) % 2 == 0 for k in (0, 1, 3))
        out = dict(zip(('y', *case), nan_like(u, *case.values())))
        # The gradient lies as proj does, where proj is dense.
        out['proj'] = torch.empty_strided(
            proj.shape, proj.stride(), dtype=proj.dtype
        ).fill_(float('nan'))
        used = kernels(
            'bidirectional',
            u.dtype,
            [*u.shape, rank, len(dt_proj), channels_adjoin(u)]
            + [multiprocessors, shared, paired],
            [*case.values(), grad, *out.values()],
        )
        assert chunks is None or used == chunks
        return out

    layout = 'channels_last' if channels_adjoin(case['u']) else 'contiguous'
    check('bidirectional_scan', case, layout, run, assert_norms_close)


def check_plain(kernels, case, softplus=True, reverse=False):
    """Check the plain scan's kernels."""

    def run(_, case, grad, **flags):
        u, A = case['u'], case['A']
        batch, groups, state, length = case['B'].shape
        channels = len(A)
        y, grad_u, grad_delta = nan_like(u, u, u)
        rows = A.new_zeros(batch, groups, 2 * state, length)
        parameters = A.new_zeros(batch, channels, state + 2)
        kernels(
            'plain',
            u.dtype,
            [batch, channels, length, state, groups, softplus, reverse],
            [u, case['delta'], A, case['B'], case['C'], case.get('D')]
            + [case.get('delta_bias'), grad, y, grad_u, grad_delta]
            + [rows, parameters],
        )
        A, D, bias = parameters.sum(0).split([state, 1, 1], dim=-1)
        out = dict(y=y, u=grad_u, delta=grad_delta, A=A)
        out.update(D=D[:, 0], delta_bias=bias[:, 0])
        out.update(B=rows[:, :, :state], C=rows[:, :, state:])
        return {k: v for k, v in out.items() if k in case or k == 'y'}

    flags = dict(delta_softplus=softplus, reverse=reverse)
    check(
        'selective_scan', case, 'contiguous', run, assert_norms_close, **flags
    )


# Lengths around runs, warps and chunks; channels around pairs and blocks;
# ranks of each instance.
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize(
    ('channels', 'length', 'rank', 'chunks'),
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
    kernels, layout, channels, length, rank, chunks
):
    batch = 1 if length > 1000 else 2
    case = fused_case(batch, channels, length, rank=rank, layout=layout)
    check_bidirectional(kernels, case, chunks=chunks)


@pytest.mark.parametrize(
    ('channels', 'length', 'rank'), [(1, 1, 1), (31, 257, 10), (33, 16, 16)]
)
def test_odd_channels(kernels, channels, length, rank):
    """The last pair is half empty; the launcher makes channels-last dense."""
    check_bidirectional(kernels, fused_case(2, channels, length, rank=rank))


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', TYPES[2:])
@pytest.mark.parametrize('rank', [10, 16, 40])
def test_types_of_16_bits(kernels, dtype, layout, rank):
    case = fused_case(1, 66, 300, rank=rank, dtype=dtype, layout=layout)
    check_bidirectional(kernels, case, chunks=5)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_plans_of_the_bidirectional_scan(kernels, layout):
    """One direction; long chunks where blocks abound; short ones for want of
    shared memory.
    """
    for length in (40, 300):
        case = fused_case(2, 34, length, 1, 10, directions=1, layout=layout)
        check_bidirectional(kernels, case)
    case = fused_case(8, 32, 700, rank=2, layout=layout)
    check_bidirectional(kernels, case, multiprocessors=1, chunks=6)
    case = fused_case(1, 34, 200, rank=64, layout=layout)
    check_bidirectional(kernels, case, shared=49152, chunks=7)


def test_slices_are_read_in_place(kernels):
    """Channels of a wider map, and tokens-first rows beside dense ones."""
    case = fused_case(2, 34, 70, rank=10, layout=('half', 'contiguous'))
    check_bidirectional(kernels, case)
    case['u'] = case['u'].contiguous()
    rows = torch.full((2, 70, 2, 15), float('nan'))  # odd: one row at a time
    rows[..., 2:-1] = case['proj'].permute(0, 3, 1, 2)
    case['proj'] = rows[..., 2:-1].permute(0, 2, 3, 1)
    check_bidirectional(kernels, case)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
@pytest.mark.parametrize('dtype', TYPES[:3])
@pytest.mark.parametrize(
    ('channels', 'length'), [(140, 13), (35, 49), (19, 196), (5, 600)]
)
def test_plain_scan(kernels, channels, length, dtype, layout):
    """Every instance; chunks and blocks that are full only in part."""
    case = plain_case(2, channels, length, 2, 1, dtype, layout)
    check_plain(kernels, case)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('length', [13, 49, 600])
def test_plain_scan_with_groups(kernels, length, reverse):
    case = plain_case(2, 12, length, state=3, groups=4)
    check_plain(kernels, case, reverse=reverse)


def test_plain_scan_without_optional_arguments(kernels):
    case = plain_case(1, 6, 70, optional=False)
    case['delta'] = case['delta'].abs() * 0.3
    check_plain(kernels, case, softplus=False)


@pytest.fixture(scope='module')
def composed(build):
    torch.ops.load_library(build('composed_scan'))
    return torch.ops.composed_scan


@pytest.mark.parametrize(
    ('dtype', 'state', 'directions', 'layout'),
    [
        (torch.float32, 3, 2, 'contiguous'),
        (torch.float64, 1, 1, 'channels_last'),
        (torch.bfloat16, 2, 2, ('half', 'channels_last')),
    ],
)
def test_composed_scan(composed, dtype, state, directions, layout):
    """Scans that the kernels for one state do not take."""

    def run(_, case, grad):
        x = case.values()
        y, *grads = composed.forward(*x), *composed.backward(grad, *x)
        assert y.stride(1) == case['u'].stride(1) or y.is_contiguous()
        return dict(zip(('y', *case), [y, *grads]))

    case = fused_case(2, 6, 9, state, 3, directions, dtype, layout)
    check('bidirectional_scan', case, run=run)


def check_wavelet(kernels, case, grad_layout, room=ROOM):
    def run(_, case, grad):
        x, weight = case.values()
        y, grad_x, grad_weight = nan_like(x, x, weight)
        groups = min(x.numel() // x.shape[1], 528)
        (partials,) = nan_like(weight.new_empty(groups, weight.numel()))
        kernels(
            'wavelet',
            x.dtype,
            [*x.shape, weight.shape[-1], room],
            [x, grad, weight, y, grad_x, grad_weight, partials],
        )
        return dict(y=y, x=grad_x, weight=grad_weight)

    del case['scale']
    check('wavelet_conv2d', case, grad_layout, run)


@pytest.mark.parametrize('side', [3, 5, 7])
@pytest.mark.parametrize('layout', MAP_LAYOUTS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_wavelet(kernels, dtype, layout, side):
    """Every instance, on a map of one tile and one with odd sides of more."""
    for size in ((8, 12), (37, 23)):
        case = wavelet_case(1, 18, *size, side, dtype, layout)
        check_wavelet(kernels, case, layout)


@pytest.mark.parametrize('room', [ROOM, 40000])
@pytest.mark.parametrize('size', [(1, 1), (1, 40), (40, 1), (66, 36)])
def test_wavelet_sizes(kernels, size, room):
    """Also with a GPU's room for a few rows of cells alone."""
    case = wavelet_case(1, 5, *size, 7)
    check_wavelet(kernels, case, 'channels_last', room)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(
        *(st.integers(1, high) for high in (3, 20, 18, 38)),
        st.sampled_from([3, 5, 7]),
    ),
    layouts=st.tuples(*[st.sampled_from(MAP_LAYOUTS)] * 2),
)
def test_random_maps(kernels, sizes, layouts):
    case = wavelet_case(*sizes, layout=layouts[0])
    check_wavelet(kernels, case, layouts[1])


def check_norm(kernels, case, grad_layout, room=ROOM):
    def run(_, case, grad):
        x, z, weight, bias = case.values()
        y, grad_x, grad_z = nan_like(x, x, z)
        batch, channels, length = x.shape
        partials, sums = nan_like(
            weight.new_empty(batch * length, 2, channels),
            weight.new_empty(2, channels),
        )
        kernels(
            'gated_norm',
            x.dtype,
            [batch, channels, length, channels_adjoin(x), room],
            [x, z, grad, weight, bias, y, grad_x, grad_z, sums, partials],
        )
        return dict(y=y, x=grad_x, z=grad_z, weight=sums[0], bias=sums[1])

    check('gated_layer_norm', case, grad_layout, run)


@pytest.mark.parametrize('layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('other', TOKEN_LAYOUTS[:2])
@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float64, torch.bfloat16]
)
def test_gated_norm(kernels, dtype, layout, other):
    case = norm_case(3, 70, 37, dtype, (layout, other))
    check_norm(kernels, case, layout)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('sizes', [(1, 4, 1), (1, 544, 33), (40, 33, 1)])
def test_gated_norm_sizes(kernels, sizes, layout):
    """Also where shared memory holds the sums of fewer warps."""
    for room in (ROOM, 10000):
        case = norm_case(*sizes, layout=layout)
        check_norm(kernels, case, layout, room)
    case['x'] += 3000  # far from zero, no variance is lost
    check_norm(kernels, case, layout)

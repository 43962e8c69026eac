"""The CUDA operators' own source, compiled for the CPU and run there.

Threads, barriers and shuffles are emulated, so that plans, indices, chunks,
carries and partial sums are tested where no GPU is. All memory starts as NaN.
"""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import (
    CASES,
    MAP_LAYOUTS,
    TOKEN_LAYOUTS,
    TOLERANCE,
    check,
    fused_case,
    norm_case,
    plain_case,
    wavelet_case,
)
from torch.utils.cpp_extension import include_paths, library_paths

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / 'csrc' / 'cuda'
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    """Compile the CUDA sources with what stands in for CUDA."""
    compiler = shutil.which('c++')
    if compiler is None or not sys.platform.startswith('linux'):
        pytest.skip('needs c++ on Linux')
    if not SOURCES.is_dir():
        pytest.skip('needs the source tree')
    command = [compiler, '-std=c++17', '-O1', '-shared', '-fPIC']
    command += ['-U_FORTIFY_SOURCE']  # which takes jumps between stacks amiss
    command += ['-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas']
    abi = int(torch.compiled_with_cxx11_abi())
    command += [f'-D_GLIBCXX_USE_CXX11_ABI={abi}']
    stand_in = HERE / 'cuda_on_cpu'
    command += [f'-I{stand_in}', '-include', str(stand_in / 'cuda_on_cpu.h')]
    for path in include_paths():
        command += ['-isystem', path]
    command += ['-x', 'c++', *map(str, sorted(SOURCES.glob('*.c*[pu]')))]
    command += [f'-L{path}' for path in library_paths()]
    command += ['-ltorch_cpu', '-lc10']
    target = tmp_path_factory.mktemp('cuda_on_cpu') / 'operators.so'
    subprocess.run([*command, '-o', str(target)], check=True)
    torch.ops.load_library(target)
    return ctypes.CDLL(str(target))


@pytest.fixture(autouse=True)
def device(library):
    """Fill new memory with NaN; give the emulated GPU's size, to be changed.

    Returns:
        Array: Multiprocessors, and bytes of shared memory that a block may
        have; those of an H100 before and after the test.
    """
    device = (ctypes.c_int * 2).in_dll(library, 'device_attributes')
    before = list(device)
    torch.use_deterministic_algorithms(True)
    yield device
    torch.use_deterministic_algorithms(False)
    device[:] = before


def run(function, case, grad, **flags):
    """Return what the CUDA code of an operator gives, and its gradients.

    Their layouts are those that torch.compile was promised.
    """
    name = function.__name__
    schema = getattr(torch.ops.selective_scan, name).default._schema
    given = {'eps': 1e-5, **case, **flags}
    values = [given.get(a.name, a.default_value) for a in schema.arguments]
    results = []
    calls = ((name, values), (f'{name}_backward', [grad, *values]))
    for operator, arguments in calls:
        sketches = [
            torch.empty_strided(
                x.shape, x.stride(), dtype=x.dtype, device='meta'
            )
            if torch.is_tensor(x)
            else x
            for x in arguments
        ]
        actual, promised = (
            [x] if torch.is_tensor(x) else x
            for x in (
                getattr(torch.ops.cuda_on_cpu, operator)(*arguments),
                getattr(torch.ops.selective_scan, operator)(*sketches),
            )
        )
        for one, other in zip(actual, promised, strict=True):
            assert one.stride() == other.stride()
        results += actual
    names = ['y', *[a.name for a in schema.arguments]]
    return {k: v for k, v in zip(names, results) if k == 'y' or k in case}


def assert_norms_close(actual, expected, dtype, name):
    """Compare norms: 1e-6 for float32, the table for the other types."""
    assert actual.isfinite().all(), f'{name}: not finite'
    tolerance = 1e-6 if actual.dtype == torch.float32 else TOLERANCE[dtype]
    error = (actual.double() - expected).norm()
    error = (error / expected.norm().clamp_min(1e-6)).item()
    assert error <= tolerance, f'{name}: error {error:.2e}'


def check_scan(name, case, layout='contiguous', **flags):
    check(name, case, layout, run, assert_norms_close, **flags)


# Lengths around runs, warps and chunks; channels around pairs and blocks;
# ranks around rows of shared memory.
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
        (1, 1, 1, 1),
        (31, 257, 10, 5),  # the last pair is half empty
        (33, 16, 16, 1),
    ],
)
def test_bidirectional(library, layout, channels, length, rank, chunks):
    batch = 1 if length > 1000 else 2
    case = fused_case(batch, channels, length, rank=rank, layout=layout)
    torch.ops.cuda_on_cpu.bidirectional_scan(*case.values())
    assert (ctypes.c_uint * 3).in_dll(library, 'gridDim')[1] == chunks
    check_scan('bidirectional_scan', case, layout)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', TYPES[2:])
@pytest.mark.parametrize('rank', [10, 16, 40])
def test_types_of_16_bits(dtype, layout, rank):
    case = fused_case(1, 66, 300, rank=rank, dtype=dtype, layout=layout)
    check_scan('bidirectional_scan', case, layout)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_plans_of_the_bidirectional_scan(device, layout):
    """One direction; long chunks where blocks abound; short ones for want of
    shared memory.
    """
    for length in (40, 300):
        case = fused_case(2, 34, length, 1, 10, directions=1, layout=layout)
        check_scan('bidirectional_scan', case, layout)
    device[0] = 1
    case = fused_case(8, 32, 700, rank=2, layout=layout)
    check_scan('bidirectional_scan', case, layout)
    device[1] = 49152
    case = fused_case(1, 34, 200, rank=64, layout=layout)
    check_scan('bidirectional_scan', case, layout)


def test_slices_of_the_bidirectional_scan():
    """Channels of a wider map, gradients that lie otherwise, odd rows."""
    case = fused_case(2, 34, 70, rank=10, layout=('half', 'contiguous'))
    for layout in TOKEN_LAYOUTS:
        check_scan('bidirectional_scan', case, layout)
    case['u'] = case['u'].contiguous()
    rows = torch.full((2, 70, 2, 15), float('nan'))
    rows[..., 2:-1] = case['proj'].permute(0, 3, 1, 2)
    case['proj'] = rows[..., 2:-1].permute(0, 2, 3, 1)
    check_scan('bidirectional_scan', case)


@pytest.mark.parametrize(
    ('dtype', 'state', 'directions', 'layout'),
    [
        (torch.float32, 8, 2, 'contiguous'),
        (torch.float64, 1, 1, 'channels_last'),
        (torch.bfloat16, 2, 2, ('half', 'channels_last')),
    ],
)
def test_composed_scan(dtype, state, directions, layout):
    """Scans that the kernels for one state do not take."""
    case = fused_case(2, 6, 9, state, 3, directions, dtype, layout)
    check_scan('bidirectional_scan', case)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'strided'])
@pytest.mark.parametrize('dtype', TYPES[:3])
@pytest.mark.parametrize(
    ('channels', 'length'), [(140, 13), (35, 49), (19, 196), (5, 600)]
)
def test_plain_scan(channels, length, dtype, layout):
    """Every instance; chunks and blocks that are full only in part."""
    case = plain_case(2, channels, length, 2, 1, dtype, layout)
    check_scan('selective_scan', case, delta_softplus=True)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('length', [13, 49, 600])
def test_plain_scan_with_groups(length, reverse):
    case = plain_case(2, 12, length, state=3, groups=4)
    flags = dict(delta_softplus=True, reverse=reverse)
    check_scan('selective_scan', case, **flags)


def test_plain_scan_without_optional_arguments():
    case = plain_case(1, 6, 70, optional=False)
    case['delta'] = case['delta'].abs() * 0.3
    check_scan('selective_scan', case)


@pytest.mark.parametrize('side', [3, 5, 7])
@pytest.mark.parametrize(
    ('layout', 'grad_layout'),
    list(zip(MAP_LAYOUTS, MAP_LAYOUTS[1:] + MAP_LAYOUTS)),
)
@pytest.mark.parametrize('dtype', TYPES[:3])
def test_wavelet(device, dtype, layout, grad_layout, side):
    """Every instance, on maps of one tile and ones with odd sides of more.

    Where the GPU is small, a block sums the filters' gradient over tiles.
    """
    for images, *size in ((1, 8, 12), (2, 37, 23)):
        device[0] = 132 if images == 1 else 1
        case = wavelet_case(images, 18, *size, side, dtype, layout)
        del case['scale']  # which is part of the weight
        check('wavelet_conv2d', case, grad_layout, run)


@pytest.mark.parametrize('room', [232448, 40000])
@pytest.mark.parametrize('size', [(1, 1), (1, 40), (40, 1), (66, 36)])
def test_wavelet_sizes(device, size, room):
    """Also with a GPU's room for a few rows of cells alone."""
    device[1] = room
    case = wavelet_case(1, 5, *size, 7)
    del case['scale']
    check('wavelet_conv2d', case, 'channels_last', run)


@pytest.mark.parametrize('layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('other', TOKEN_LAYOUTS[:2])
@pytest.mark.parametrize('dtype', TYPES[:3])
def test_gated_norm(dtype, layout, other):
    case = norm_case(3, 70, 37, dtype, (layout, other))
    check('gated_layer_norm', case, layout, run)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize(
    'sizes', [(1, 4, 1), (1, 544, 33), (40, 33, 1), (3, 5, 99)]
)
def test_gated_norm_sizes(device, sizes, layout):
    """Also where a block takes several tiles, and where shared memory holds
    the sums of fewer warps.
    """
    for size in ((132, 232448), (1, 10000)):
        device[:] = size
        case = norm_case(*sizes, layout=layout)
        check('gated_layer_norm', case, layout, run)
    case['x'] += 3000  # far from zero, no variance is lost
    check('gated_layer_norm', case, layout, run)


@pytest.mark.parametrize('name', CASES)
def test_empty_batch(name):
    """Gradients of parameters are 0."""
    case = CASES[name](0)
    case.pop('scale', None)
    check(name, case, run=run)

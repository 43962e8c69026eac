"""The CUDA kernels around the scan, compiled for the CPU and run there.

Results start as NaN, and so does the emulated shared memory.
"""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import (
    MAP_LAYOUTS,
    TOKEN_LAYOUTS,
    check,
    norm_case,
    wavelet_case,
)

HERE = Path(__file__).resolve().parent
TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
ROOM = 232448  # bytes of shared memory that a block of an H100 may have


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    """Compile the kernels for the CPU."""
    compiler = shutil.which('c++')
    if compiler is None or not sys.platform.startswith('linux'):
        pytest.skip('needs c++ on Linux')
    if not (HERE.parent / 'csrc').is_dir():
        pytest.skip('needs the source tree')
    target = tmp_path_factory.mktemp('around_on_cpu') / 'run_around.so'
    source = HERE / 'cuda_on_cpu' / 'run_around.cpp'
    subprocess.run(
        [compiler, '-std=c++17', '-O1', '-Wall', '-Wextra', '-Werror']
        + ['-Wno-unknown-pragmas', '-shared', '-fPIC', str(source)]
        + ['-o', str(target)],
        check=True,
    )
    return ctypes.CDLL(str(target))


def nan_like(*tensors):
    return [torch.full_like(tensor, float('nan')) for tensor in tensors]


def call(function, sizes, tensors, strided, *extra):
    strides = [s for tensor in strided for s in tensor.stride()]
    function(
        TYPES[tensors[0].dtype],
        (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors]),
        (ctypes.c_int64 * len(strides))(*strides),
        *extra,
    )


def check_wavelet(library, case, grad_layout, room=ROOM):
    def run(_, case, grad):
        x, weight = case.values()
        y, grad_x, grad_weight = nan_like(x, x, weight)
        groups = min(x.numel() // x.shape[1], 528)
        (partials,) = nan_like(weight.new_empty(groups, weight.numel()))
        call(
            library.run_wavelet,
            [*x.shape, weight.shape[-1], room],
            [x, grad, weight, y, grad_x, grad_weight, partials],
            [x, grad, y, grad_x],
        )
        return dict(y=y, x=grad_x, weight=grad_weight)

    del case['scale']
    check('wavelet_conv2d', case, grad_layout, run)


@pytest.mark.parametrize('side', [3, 5, 7])
@pytest.mark.parametrize('layout', MAP_LAYOUTS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_wavelet(library, dtype, layout, side):
    """Every instance, on a map of one tile and one with odd sides of more."""
    for size in ((8, 12), (37, 23)):
        case = wavelet_case(1, 18, *size, side, dtype, layout)
        check_wavelet(library, case, layout)


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (40, 1), (66, 36)])
def test_wavelet_sizes(library, size):
    """Also with a GPU's room for a few rows of cells alone."""
    for room in (ROOM, 40000):
        case = wavelet_case(1, 5, *size, 7)
        check_wavelet(library, case, 'channels_last', room)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 20),
    size=st.tuples(st.integers(1, 18), st.integers(1, 38)),
    side=st.sampled_from([3, 5, 7]),
    layouts=st.tuples(*[st.sampled_from(MAP_LAYOUTS)] * 2),
)
def test_random_maps(library, batch, channels, size, side, layouts):
    case = wavelet_case(batch, channels, *size, side, layout=layouts[0])
    check_wavelet(library, case, layouts[1])


def check_norm(library, case, grad_layout, room=ROOM):
    def run(_, case, grad):
        x, z, weight, bias = case.values()
        y, grad_x, grad_z = nan_like(x, x, z)
        batch, channels, length = x.shape
        partials, sums = nan_like(
            weight.new_empty(batch * length, 2, channels),
            weight.new_empty(2, channels),
        )
        last = x.stride(1) == 1 and x.stride(2) != 1
        call(
            library.run_gated_norm,
            [batch, channels, length, last, room],
            [x, z, grad, weight, bias, y, grad_x, grad_z, sums, partials],
            [x, z, grad, y, grad_x, grad_z],
            ctypes.c_double(1e-5),
        )
        return dict(y=y, x=grad_x, z=grad_z, weight=sums[0], bias=sums[1])

    check('gated_layer_norm', case, grad_layout, run)


@pytest.mark.parametrize('layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('other', TOKEN_LAYOUTS[:2])
@pytest.mark.parametrize('dtype', list(TYPES))
def test_gated_norm(library, dtype, layout, other):
    case = norm_case(3, 70, 37, dtype, (layout, other))
    check_norm(library, case, layout)


@pytest.mark.parametrize('sizes', [(1, 4, 1), (1, 544, 33), (40, 33, 1)])
def test_gated_norm_sizes(library, sizes):
    """Also where shared memory holds the sums of fewer warps."""
    for layout in ('contiguous', 'channels_last'):
        for room in (ROOM, 10000):
            case = norm_case(*sizes, layouts=(layout, layout))
            check_norm(library, case, layout, room)


def test_gated_norm_far_from_zero(library):
    for layout in ('contiguous', 'channels_last'):
        case = norm_case(2, 64, 5, layouts=(layout, layout))
        case['x'] += 3000
        check_norm(library, case, layout)

"""The CUDA kernels around the scan, compiled for the CPU and run there.

Results start as NaN, and so does the emulated shared memory.
"""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import selective_scan as ss
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import (
    MAP_LAYOUTS,
    TOKEN_LAYOUTS,
    norm_case,
    place_map,
    place_tokens,
    wavelet_case,
)
from scan_cases import assert_close, run_with_grads

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


def empty_like(tensor, layout=None):
    """NaN of a tensor's strides, or dense in the nearer layout."""
    return torch.empty_like(tensor).fill_(float('nan'))


def call(function, case, sizes, tensors, strided, *extra):
    strides = [s for tensor in strided for s in tensor.stride()]
    function(
        TYPES[case['x'].dtype],
        (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors]),
        (ctypes.c_int64 * len(strides))(*strides),
        *extra,
    )


def compare(reference, case, grad, actual):
    dtype = case['x'].dtype
    exact = {k: v.double() for k, v in case.items()}
    expected = run_with_grads(reference, exact, grad.double())
    for name, value in actual.items():
        assert_close(value, expected[name], dtype, name)


def check_wavelet(library, case, grad_layout, room=ROOM):
    case.pop('scale')
    x, weight = case['x'], case['weight']
    grad = place_map(torch.randn(x.shape).to(x.dtype), grad_layout)
    cells = -(-x.shape[2] // 2) * -(-x.shape[3] // 2)
    groups = min(x.shape[0] * cells, 528)
    y, grad_x, grad_weight = map(empty_like, (x, x, weight))
    partials = weight.new_full((groups, weight.numel()), float('nan'))
    call(
        library.run_wavelet,
        case,
        [*x.shape, weight.shape[-1], room],
        [x, grad, weight, y, grad_x, grad_weight, partials],
        [x, grad, y, grad_x],
    )
    actual = dict(y=y, x=grad_x, weight=grad_weight)
    compare(ss.wavelet_conv2d_reference, case, grad, actual)


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


def check_norm(library, case, grad_layout, room=ROOM, eps=1e-5):
    x, z, weight, bias = case.values()
    grad = place_tokens(torch.randn(x.shape).to(x.dtype), grad_layout)
    y, grad_x, grad_z, grad_weight, grad_bias = map(
        empty_like, (x, x, z, weight, bias)
    )
    batch, channels, length = x.shape
    partials = weight.new_full((batch * length, 2, channels), float('nan'))
    sums = weight.new_full((2, channels), float('nan'))
    last = x.stride(1) == 1 and x.stride(2) != 1
    call(
        library.run_gated_norm,
        case,
        [batch, channels, length, last, room],
        [x, z, grad, weight, bias, y, grad_x, grad_z, sums, partials],
        [x, z, grad, y, grad_x, grad_z],
        ctypes.c_double(eps),
    )
    actual = dict(y=y, x=grad_x, z=grad_z, weight=sums[0], bias=sums[1])
    compare(ss.gated_layer_norm_reference, case, grad, actual)


@pytest.mark.parametrize('x_layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('z_layout', TOKEN_LAYOUTS)
@pytest.mark.parametrize('dtype', list(TYPES))
def test_gated_norm(library, dtype, x_layout, z_layout):
    case = norm_case(3, 70, 37, dtype, (x_layout, z_layout))
    check_norm(library, case, z_layout)


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

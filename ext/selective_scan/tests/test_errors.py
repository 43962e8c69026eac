"""Wrong arguments: an error that names the argument, never a crash."""

import re

import pytest
import selective_scan as ss
import torch
from cases import CASES, at_memory_end, random_settings
from hypothesis import given
from hypothesis import strategies as st
from selective_scan import inference as si

ops = torch.ops.selective_scan

# Of default cases, as scans of (2, 6, 7) with one state and rank 3: an
# argument, a wrong shape.
BAD_SHAPES = {
    'selective_scan': [
        ('u', (2, 6)),
        ('delta', (2, 6, 8)),
        ('A', (5, 1)),
        ('A', (6, 257)),
        ('A', (6, 0)),
        ('B', (2, 1, 2, 7)),
        ('B', (2, 1, 7)),
        ('B', (2, 4, 1, 7)),
        ('B', (2, 0, 1, 7)),
        ('C', (2, 2, 1, 7)),
        ('D', (7,)),
        ('delta_bias', (6, 1)),
    ],
    'bidirectional_scan': [
        ('u', (2, 6, 7, 1)),
        ('proj', (2, 2, 4, 7)),
        ('dt_proj', (3, 6, 3)),
        ('dt_proj', (2, 5, 3)),
        ('dt_proj', (2, 6, 0)),
        ('dt_bias', (12,)),
        ('A', (12, 1)),
        ('A', (2, 6, 300)),
        ('D', (2, 7)),
    ],
    'wavelet_conv2d': [
        ('x', (5, 7, 6)),
        ('weight', (8, 1, 3, 3)),
        ('weight', (20, 1, 3, 2)),
        ('weight', (20, 3, 3)),
    ],
    'gated_layer_norm': [
        ('x', (2, 7)),
        ('z', (2, 7, 8)),
        ('weight', (8,)),
        ('bias', (7, 1)),
    ],
}

EPS = {'gated_layer_norm': dict(eps=1e-5)}  # no default of the operator


def refused(error, name):
    return pytest.raises(error, match=rf'\b{name}\b')


def plain_arguments(name):
    case = CASES[name]()
    case.pop('scale', None)
    return case


@pytest.mark.parametrize(
    ('function', 'name', 'shape'),
    [(key, *bad) for key, several in BAD_SHAPES.items() for bad in several],
)
def test_shapes(function, name, shape):
    case = {**plain_arguments(function), name: torch.zeros(shape)}
    with refused(ValueError, name) as error:
        getattr(ss, function)(**case)
    # What was given is part of the message: its shape or the number in it.
    given = [str(list(shape)), *(f'{n}' for n in shape if n not in (2, 6, 7))]
    assert any(text in str(error.value) for text in given)


@pytest.mark.parametrize('function', CASES)
def test_dtypes_and_devices(function):
    case, call = plain_arguments(function), getattr(ss, function)
    eps = EPS.get(function, {})
    for name, value in case.items():
        with refused(TypeError, name):
            call(**{**case, name: value.int()})
        with refused(ValueError, name):
            call(**{**case, name: value.to('meta')})
        # No kernel may read memory as another type than it holds.
        with pytest.raises(TypeError):
            getattr(ops, function)(**{**case, name: value.double()}, **eps)
    with pytest.raises(RuntimeError):
        first = next(iter(case))
        call(**{**case, first: case[first].to_sparse()})


def test_eps_must_be_positive():
    with refused(ValueError, 'eps'):
        ss.gated_layer_norm(**CASES['gated_layer_norm'](), eps=-1.0)


@pytest.mark.parametrize('function', CASES)
def test_backward_wants_a_grad_like_the_input(function):
    case = plain_arguments(function)
    first, last = list(case)[0], list(case)[-1]
    backward = getattr(ops, f'{function}_backward')
    grad, eps = case[first], EPS.get(function, {})
    with refused(ValueError, 'grad'):
        backward(grad[..., 1:], **case, **eps)
    with refused(TypeError, 'grad'):
        backward(grad.double(), **case, **eps)
    with refused(ValueError, last):
        backward(grad, **{**case, last: case[last].to('meta')}, **eps)


X = torch.randn(1, 20, 4, 4)
TAPS = si.pack_depthwise(torch.randn(20, 1, 3, 3))
BANDS = si.pack_wavelet(torch.randn(80, 1, 3, 3))
MATRIX = si.pack_matrix(torch.randn(40, 20, 1, 1))
BACK = si.pack_matrix(torch.randn(20, 40, 1, 1))
BIAS = torch.randn(48)
INFERENCE = {
    si.depthwise_conv2d: dict(
        x=X,
        weight=TAPS,
        bias=torch.ones(32),
        activation='relu',
        scale=torch.ones(32),
        shift=torch.ones(32),
    ),
    si.wavelet_conv2d: dict(x=X, weight=BANDS),
    si.dense_conv2d: dict(
        x=X,
        weight=MATRIX,
        bias=BIAS,
        channels=40,
        kernel_size=(1, 1),
        stride=(1, 1),
        padding=(0, 0),
        activation='relu',
        add=torch.ones(1, 40, 4, 4),
    ),
    si.feed_forward: dict(
        x=X,
        first=MATRIX,
        first_bias=BIAS,
        second=BACK,
        second_bias=torch.ones(32),
        hidden=40,
        activation='relu',
        filter=TAPS,
        filter_bias=torch.ones(32),
        add=X,
    ),
}
BAD_VALUES = [
    (si.depthwise_conv2d, 'weight', torch.randn(2, 2, 32)),
    (si.depthwise_conv2d, 'weight', TAPS[..., :20].contiguous()),
    (si.depthwise_conv2d, 'weight', BANDS),
    (si.depthwise_conv2d, 'bias', torch.ones(20)),
    (si.depthwise_conv2d, 'scale', None),
    (si.depthwise_conv2d, 'activation', 'gelu'),
    (si.wavelet_conv2d, 'weight', TAPS),
    (si.dense_conv2d, 'x', X[:, :19]),
    (si.dense_conv2d, 'kernel_size', (0, 1)),
    (si.dense_conv2d, 'kernel_size', (5, 5)),
    (si.dense_conv2d, 'kernel_size', (1,)),
    (si.dense_conv2d, 'stride', (0, 1)),
    (si.dense_conv2d, 'padding', (0, -1)),
    (si.dense_conv2d, 'channels', 64),
    (si.dense_conv2d, 'channels', 0),
    (si.dense_conv2d, 'bias', BIAS[:40]),
    (si.dense_conv2d, 'add', X),
    (si.feed_forward, 'hidden', 80),
    (si.feed_forward, 'second', MATRIX),
    (si.feed_forward, 'activation', 'gelu'),
    (si.feed_forward, 'filter', TAPS[:, :2]),
    (si.feed_forward, 'filter', None),
    (si.feed_forward, 'add', X[:, :1]),
]


@pytest.mark.parametrize(('function', 'name', 'value'), BAD_VALUES)
def test_operators_that_infer(function, name, value):
    case = INFERENCE[function]
    either = name in ('kernel_size', 'x')
    function(**case)
    with refused(ValueError, '(x|weight|kernel_size)' if either else name):
        function(**{**case, name: value})


def test_operators_that_infer_want_float32():
    for function, case in INFERENCE.items():
        for name, value in case.items():
            if isinstance(value, torch.Tensor):
                with refused(TypeError, name):
                    function(**{**case, name: value.double()})
                with refused(ValueError, 'device'):
                    function(**{**case, name: value.to('meta')})


@pytest.mark.parametrize(
    ('pack', 'shape'),
    [
        (si.pack_depthwise, (20, 2, 3, 3)),
        (si.pack_depthwise, (20, 1, 2, 2)),
        (si.pack_depthwise, (20, 1, 3, 5)),
        (si.pack_wavelet, (18, 1, 3, 3)),
        (si.pack_matrix, (4, 4)),
        (si.pack_channels, (4, 4)),
    ],
)
def test_packing(pack, shape):
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        pack(torch.randn(shape))


HUGE = 2**40
ALL = dict(INFERENCE)
for _name in CASES:
    _case = {**plain_arguments(_name), **EPS.get(_name, {})}
    ALL[getattr(ops, _name)] = _case
    _grad = next(iter(_case.values()))
    ALL[getattr(ops, f'{_name}_backward')] = dict(grad=_grad, **_case)


@random_settings(200)
@given(st.data())
def test_one_spoilt_tensor_never_crashes(data):
    """Refused, or computed where it happens to fit; run under sanitizers."""
    function = data.draw(st.sampled_from(list(ALL)))
    case = dict(ALL[function])
    name = data.draw(
        st.sampled_from([k for k, v in case.items() if torch.is_tensor(v)])
    )
    shape = list(case[name].shape)
    dim = data.draw(st.integers(0, len(shape) - 1))
    shape[dim] = data.draw(
        st.sampled_from([0, shape[dim] + 1, max(shape[dim] - 1, 0), HUGE])
    )
    # The huge one is as large as it says, with the memory of one value.
    one = torch.ones([1] * len(shape)).expand(shape)
    case[name] = one if shape[dim] == HUGE else one.contiguous()
    for key, value in case.items():
        if torch.is_tensor(value) and value.numel() < HUGE:
            case[key] = at_memory_end(value)
    try:
        function(**case)
    except (ValueError, TypeError, RuntimeError):
        pass

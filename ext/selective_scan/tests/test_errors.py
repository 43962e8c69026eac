"""Wrong arguments: an error that names the argument, never a crash."""

import pytest
import selective_scan as ss
import torch
from cases import CASES, INFERENCE, at_memory_end, random_settings
from hypothesis import given
from hypothesis import strategies as st

ops = torch.ops.selective_scan

# Of default cases, as scans of (2, 6, 7) with one state and rank 3: wrong
# shapes of an argument.
BAD_SHAPES = {
    'selective_scan': dict(
        u=[(2, 6)],
        delta=[(2, 6, 8)],
        A=[(5, 1), (6, 257), (6, 0)],
        B=[(2, 1, 2, 7), (2, 1, 7), (2, 4, 1, 7), (2, 0, 1, 7)],
        C=[(2, 2, 1, 7)],
        D=[(7,)],
        delta_bias=[(6, 1)],
    ),
    'bidirectional_scan': dict(
        u=[(2, 6, 7, 1)],
        proj=[(2, 2, 4, 7)],
        dt_proj=[(3, 6, 3), (2, 5, 3), (2, 6, 0)],
        dt_bias=[(12,)],
        A=[(12, 1), (2, 6, 300)],
        D=[(2, 7)],
    ),
    'wavelet_conv2d': dict(
        x=[(5, 7, 6)], weight=[(8, 1, 3, 3), (20, 1, 3, 2), (20, 3, 3)]
    ),
    'gated_layer_norm': dict(
        x=[(2, 7)], z=[(2, 7, 8)], weight=[(8,)], bias=[(7, 1)]
    ),
}


def refused(error, name):
    return pytest.raises(error, match=rf'\b{name}\b')


def listed(table):
    return [
        (function, name, value)
        for function, arguments in table.items()
        for name, values in arguments.items()
        for value in values
    ]


FORWARD = {name: make() for name, make in CASES.items()}
FORWARD['wavelet_conv2d'].pop('scale')  # no argument of the operator
FORWARD.update(INFERENCE)


@pytest.mark.parametrize(('function', 'name', 'shape'), listed(BAD_SHAPES))
def test_shapes(function, name, shape):
    case = {**FORWARD[function], name: torch.zeros(shape)}
    with refused(ValueError, name) as error:
        getattr(ss, function)(**case)
    # What was given is part of the message: its shape or the number in it.
    given = [str(list(shape)), *(f'{n}' for n in shape if n not in (2, 6, 7))]
    assert any(text in str(error.value) for text in given)


@pytest.mark.parametrize('function', FORWARD)
def test_dtypes_and_devices(function):
    case, operator = FORWARD[function], getattr(ops, function)
    call = getattr(ss, function, operator)
    for name, value in case.items():
        if torch.is_tensor(value):
            with refused(TypeError, name):
                call(**{**case, name: value.int()})
            with refused(ValueError, name):
                call(**{**case, name: value.to('meta')})
            # No kernel may read memory as another type than it holds.
            with pytest.raises(TypeError):
                operator(**{**case, name: value.double()})
    with pytest.raises(RuntimeError):
        first = next(iter(case))
        call(**{**case, first: case[first].to_sparse()})


@pytest.mark.parametrize('function', CASES)
def test_backward_wants_a_grad_like_the_input(function):
    case = FORWARD[function]
    first, *_, last = case
    grad, backward = case[first], getattr(ops, f'{function}_backward')
    with refused(ValueError, 'grad'):
        backward(grad[..., 1:], **case)
    with refused(TypeError, 'grad'):
        backward(grad.double(), **case)
    with refused(ValueError, last):
        backward(grad, **{**case, last: case[last].to('meta')})


TAPS, MATRIX = (
    INFERENCE[name]['weight'] for name in ('depthwise_conv2d', 'dense_conv2d')
)
BAD_VALUES = {
    'gated_layer_norm': dict(eps=[-1.0]),
    'depthwise_conv2d': dict(
        weight=[torch.randn(2, 2, 32), TAPS[..., :20].contiguous()],
        bias=[torch.ones(20), torch.ones(32, 2)[:, 0]],
        scale=[None],
        activation=['gelu'],
    ),
    'packed_wavelet_conv2d': dict(weight=[TAPS]),
    'dense_conv2d': dict(
        weight=[MATRIX[:, :19].contiguous(), MATRIX.mT],
        kernel_size=[(0, 1), (7, 7), (1,)],
        stride=[(0, 1)],
        padding=[(0, -1)],
        channels=[64, 0],
        bias=[torch.ones(40)],
        add=[torch.ones(1, 20, 4, 2)],
    ),
    'feed_forward': dict(
        hidden=[80],
        second=[MATRIX],
        activation=['gelu'],
        filter=[TAPS[:, :2], None],
        add=[torch.ones(1, 19, 4, 4)],
    ),
}


@pytest.mark.parametrize(('function', 'name', 'value'), listed(BAD_VALUES))
def test_values(function, name, value):
    case, operator = FORWARD[function], getattr(ops, function)
    operator(**case)
    with refused(ValueError, name):
        operator(**{**case, name: value})


HUGE = 2**40
ALL = dict(FORWARD)
for _name in CASES:
    _grad = next(iter(FORWARD[_name].values()))
    ALL[f'{_name}_backward'] = dict(grad=_grad, **FORWARD[_name])


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
        getattr(ops, function)(**case)
    except (ValueError, TypeError, RuntimeError):
        pass

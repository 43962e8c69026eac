"""Shapes, strides and options drawn at random."""

import pytest
import selective_scan as ss
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_cases import TOLERANCE, assert_close, fused_case, plain_case

DTYPES = st.sampled_from(list(TOLERANCE))
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def strided(draw, tensor):
    """The same values in any order of dimensions, with gaps between them."""
    order = draw(st.permutations(range(tensor.dim())))
    steps = [draw(st.sampled_from([1, 1, 1, 2])) for _ in order]
    sizes = [tensor.shape[d] * step for d, step in zip(order, steps)]
    wide = tensor.new_full(sizes, 9)
    view = wide[tuple(slice(None, None, step) for step in steps)]
    view = view.permute([order.index(d) for d in range(tensor.dim())])
    return view.copy_(tensor)


def _check(data, function, reference, case, dtype, low, **flags):
    for name in low:
        case[name] = data.draw(strided(case[name]))
    grad = torch.randn(case['u'].shape).to(dtype)
    grad = data.draw(strided(grad))
    leaves = {k: v.detach().requires_grad_() for k, v in case.items()}
    y = function(**leaves, **flags)
    y.backward(grad)
    exact = {k: v.double().requires_grad_() for k, v in case.items()}
    expected = reference(**exact, **flags)
    expected.backward(grad.double())
    assert y.dtype == dtype
    assert_close(y.detach(), expected.detach(), dtype, 'y')
    for name, leaf in leaves.items():
        wanted = exact[name].grad
        if wanted is None:  # the reference never reached it
            wanted = torch.zeros_like(leaf.grad)
        assert leaf.grad.dtype == leaf.dtype
        assert_close(leaf.grad, wanted, dtype, name)


@SETTINGS
@given(st.data())
def test_selective_scan(data):
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    dtype = data.draw(DTYPES)
    case = plain_case(
        data.draw(st.integers(0, 3)),
        groups * data.draw(st.integers(1, 24)),
        data.draw(st.integers(0, 40)),
        data.draw(st.integers(1, 4)),
        groups,
        dtype=dtype,
        seed=data.draw(st.integers(0, 9)),
    )
    for name in ('D', 'delta_bias'):
        if data.draw(st.booleans()):
            del case[name]
    _check(
        data,
        ss.selective_scan,
        ss.selective_scan_reference,
        case,
        dtype,
        ('u', 'delta', 'B', 'C'),
        delta_softplus=True,
        reverse=data.draw(st.booleans()),
    )


@SETTINGS
@given(st.data())
def test_bidirectional_scan(data):
    dtype = data.draw(DTYPES)
    case = fused_case(
        data.draw(st.integers(0, 3)),
        data.draw(st.integers(1, 70)),
        data.draw(st.integers(0, 40)),
        data.draw(st.integers(1, 4)),
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(1, 2)),
        dtype=dtype,
        seed=data.draw(st.integers(0, 9)),
    )
    _check(
        data,
        ss.bidirectional_scan,
        ss.bidirectional_scan_reference,
        case,
        dtype,
        ('u', 'proj'),
    )


def test_the_tolerances_catch_a_wrong_gradient():
    """A gradient off by a percent must not pass."""
    case = fused_case(2, 40, 40)
    y = ss.bidirectional_scan(**case)
    with pytest.raises(AssertionError, match='error'):
        assert_close(y * 1.01, y, torch.float32)

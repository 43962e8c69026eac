"""Random calls of every operator, right and wrong, each made from a number.

A call is drawn from ``seed`` and ``index`` alone, so that one that failed can
be made again by itself.
"""

from functools import partial

import fuzz_cases as cases
import fuzz_rules as rules
import selective_scan as ss
import torch
from fuzz_cases import DTYPES, Draw
from selective_scan._checks import (
    check_bidirectional_scan,
    check_selective_scan,
)

OPS = torch.ops.selective_scan
HUGE = 2**40
FOREIGN_DTYPES = (torch.int64, torch.bool, torch.complex64, torch.uint8)
# What an operator may refuse with; the dispatcher's own is a RuntimeError.
REFUSALS = (ValueError, TypeError, RuntimeError)


def _with_gradients(function, **case):
    """Return a scan's output and the gradients of all that it read."""
    leaves = {
        name: value.detach().requires_grad_()
        if isinstance(value, torch.Tensor)
        else value
        for name, value in case.items()
    }
    y = function(**leaves)
    y.float().sum().backward()
    return (y.detach(), *(v.grad for v in leaves.values() if _read(v)))


def _read(value):
    return isinstance(value, torch.Tensor) and value.grad is not None


def _scan_kinds(name, make, check):
    """Return the ways to one of the scans."""
    strict = partial(rules.check_scan, check)
    promoted = partial(rules.check_scan, check, promoted=True)
    function = getattr(ss, name)
    backward = getattr(OPS, f'{name}_backward')
    return {
        name: (getattr(OPS, name), make, strict),
        f'{name}_backward': (backward, partial(cases.with_grad, make), strict),
        f'{name} by its function': (function, make, promoted),
        f'{name} with gradients': (
            partial(_with_gradients, function),
            make,
            promoted,
        ),
    }


# Name: function, arguments drawn, what raises where they are wrong.
KINDS = {
    **_scan_kinds('selective_scan', cases.plain, check_selective_scan),
    **_scan_kinds('bidirectional_scan', cases.fused, check_bidirectional_scan),
    'depthwise_conv2d': (
        ss.depthwise_conv2d,
        cases.depthwise,
        partial(rules.check_filter, 3),
    ),
    'wavelet_conv2d': (
        ss.wavelet_conv2d,
        cases.wavelet,
        partial(rules.check_filter, 4),
    ),
    'dense_conv2d': (ss.dense_conv2d, cases.dense, rules.check_dense),
    'halving_conv2d': (
        ss.halving_conv2d,
        cases.halving,
        rules.check_halving,
    ),
    'feed_forward': (
        ss.feed_forward,
        cases.feed_forward,
        rules.check_feed_forward,
    ),
    'gated_layer_norm': (ss.gated_layer_norm, cases.gate, rules.check_gate),
    'pack_channels': (
        ss.pack_channels,
        cases.values,
        rules.check_channel_values,
    ),
    'pack_matrix': (
        ss.pack_matrix,
        cases.pack_dense,
        rules.check_dense_weight,
    ),
    'pack_strassen': (
        ss.pack_strassen,
        cases.pack_pointwise,
        rules.check_pointwise_weight,
    ),
    'pack_halving': (
        ss.pack_halving,
        cases.pack_dense,
        partial(rules.check_dense_weight, kernel_size=(3, 3)),
    ),
    'pack_depthwise': (
        ss.pack_depthwise,
        partial(cases.pack, 1),
        partial(rules.check_depthwise_weight, 1),
    ),
    'pack_wavelet': (
        ss.pack_wavelet,
        partial(cases.pack, 4),
        partial(rules.check_depthwise_weight, 4),
    ),
}


def make_call(seed, index):
    """Draw one call.

    Args:
        seed (int): Seed of a run.
        index (int): Number of the call in it.

    Returns:
        tuple[Draw, str, dict, bool]: The numbers for what else is drawn, the
        operator's name, its arguments, and whether values are ordinary ones.
    """
    draw = Draw(f'{seed}-{index}')
    kind = draw.choice(list(KINDS))
    odd = draw.chance(0.1)
    case = KINDS[kind][1](draw, odd)
    if draw.chance(0.4):
        name = draw.choice(list(case))
        case[name] = _spoil(draw, case[name])
        # What is no softplus lets the state grow without bounds.
        odd = odd or name == 'delta_softplus'
    return draw, kind, case, not odd


def _spoil(draw, value):
    """Make an argument that is most often wrong."""
    if not isinstance(value, torch.Tensor):
        return draw.choice((value, None, 'gelu', 3, -1.0, [1], torch.ones(3)))
    shape, dims = list(value.shape), value.dim()
    way = draw.choice(('size', 'size', 'dims', 'dtype', 'kind', 'device'))
    if way == 'size' and dims:
        dim = draw.randrange(dims)
        shape[dim] = draw.choice(
            (0, shape[dim] + 1, max(shape[dim] - 1, 0), 300, HUGE)
        )
        if shape[dim] != HUGE:
            return draw.tensor(shape, value.dtype)
        # As large as it says to who asks, with the memory of one value.
        return value.new_ones([1] * dims).expand(shape)
    if way == 'dims':
        if dims and draw.chance(0.5):
            return draw.tensor(shape[1:], value.dtype)
        return value.unsqueeze(draw.randint(0, dims))
    if way == 'dtype':
        return value.to(draw.choice(DTYPES + FOREIGN_DTYPES))
    if way == 'device':
        return value.to('meta')
    return draw.choice((None, 1.0, 'u', [1.0], value.to_sparse()))


def run_call(seed, index):
    """Make one call and check what came of it.

    Args:
        seed (int): Seed of a run.
        index (int): Number of the call in it.

    Returns:
        tuple[str, bool]: The operator, and whether it took the arguments.

    Raises:
        AssertionError: Wrong arguments were taken, right ones refused or
            refused with another error than these should be, or a result is
            wrong.
    """
    draw, kind, case, ordinary = make_call(seed, index)
    function, _, check = KINDS[kind]
    try:
        check(case)
        wrong = None
    except (ValueError, TypeError) as error:
        wrong = error
    threads = draw.choice((1, 1, 1, 2))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    ss.set_cpu_variant(draw.choice(('plain', 'best', 'best')))
    case_text = f'seed {seed}, call {index}, {kind}({_describe(case)})'
    try:
        result = function(**case)
    except REFUSALS as error:
        assert wrong is not None, f'{case_text}: refused with {error!r}'
        return kind, False
    except Exception as error:
        raise AssertionError(f'{case_text}: {error!r}') from error
    assert wrong is None, f'{case_text}: taken in spite of {wrong!r}'
    if kind.startswith('pack') or case.get('eps') == 0:
        return kind, True
    if ordinary:
        for value in result if isinstance(result, tuple) else (result,):
            assert value.isfinite().all(), f'{case_text}: not finite'
        if draw.chance(0.05):
            try:
                rules.compare(kind, case, result)
            except AssertionError as error:
                raise AssertionError(f'{case_text}: {error}') from error
    return kind, True


def _describe(case):
    return ', '.join(
        f'{name}={value.dtype} {tuple(value.shape)} on {value.device}'
        if isinstance(value, torch.Tensor)
        else f'{name}={value!r}'
        for name, value in case.items()
    )

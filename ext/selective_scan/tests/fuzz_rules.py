"""What each operator may be given, and what it has to give back.

The checks raise where the arguments are wrong. They know the operators'
contract and not their code.
"""

import math

import selective_scan as ss
import torch
import torch.nn.functional as F
from fuzz_cases import DTYPES
from scan_cases import assert_close
from selective_scan._checks import check_tensors, state_dtype

LARGEST = 2**32  # values of a tensor, beyond which there is no memory
_ACTIVATIONS = {'none': lambda x: x, 'relu': F.relu, 'silu': F.silu}


def _require(*conditions):
    """Ask one condition after the other, as each builds on those before."""
    for number, condition in enumerate(conditions):
        if not condition():
            raise ValueError(f'condition {number} of the operator')


def _dense(value):
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def _floats(*values):
    return all(
        _dense(v) and v.dtype == torch.float32 and v.device.type == 'cpu'
        for v in values
    )


def check_scan(check, case, promoted=False):
    given, maybe, flags = dict(case), {}, []
    if 'delta' in case:
        maybe = {name: given.pop(name) for name in ('D', 'delta_bias')}
        flags = [given.pop(name) for name in ('delta_softplus', 'reverse')]
    # torch takes any number for a bool, and None.
    _require(lambda: not any(isinstance(f, str | list) for f in flags))
    _require(lambda: not any(isinstance(f, torch.Tensor) for f in flags))
    check_tensors(given, maybe)
    dtype = given['u'].dtype
    for name, value in {**given, **maybe}.items():
        wide = name in ('u', 'delta', 'proj', 'B', 'C', 'grad')
        wanted = dtype if wide else state_dtype(dtype)
        if value is not None and value.dtype != wanted and not promoted:
            raise TypeError(f'{name} is {value.dtype}, wanted {wanted}')
    grad = given.pop('grad', given['u'])
    _require(lambda: grad.shape == given['u'].shape)
    check(**given, **maybe)


def check_filter(dims, case):
    x, weight = case['x'], case['weight']
    given = [case.get(name) for name in ('bias', 'scale', 'shift')]
    _require(
        lambda: _floats(x, weight, *(v for v in given if v is not None)),
        lambda: x.dim() == 4 and weight.dim() == dims,
        lambda: x.numel() < LARGEST and weight.is_contiguous(),
        lambda: weight.shape[0] == weight.shape[1] and weight.shape[0] % 2,
        lambda: dims == 3 or weight.shape[2] == 4,
        lambda: weight.shape[-1] == -(-x.shape[1] // 16) * 16,
        lambda: all(v is None or v.shape == weight.shape[-1:] for v in given),
        lambda: given[2] is None or given[1] is not None,
        lambda: case.get('activation', 'none') in _ACTIVATIONS,
    )


def _blocks(outputs):
    return -(-outputs // 16)


def _is_matrix(weight, outputs, depth, strassen=False):
    wanted = (_blocks(outputs), depth, 16)
    if strassen:
        pairs = outputs // 32
        tiles = 7 * pairs + 2 * (_blocks(outputs) - 2 * pairs)
        wanted = (tiles, depth // 2, 16)
    return tuple(weight.shape) == wanted and weight.is_contiguous()


def _is_strassen(weight, depth):
    halves = weight.dim() == 3 and weight.shape[1] * 2 == depth
    return halves and depth >= 32


def _is_count(value):
    return type(value) is int and value > 0


def check_dense(case):
    x, weight, bias, add = (case[k] for k in ('x', 'weight', 'bias', 'add'))
    kernel, stride, padding = (
        case[k] for k in ('kernel_size', 'stride', 'padding')
    )
    outputs = case['channels']
    pairs = (kernel, stride, padding)

    def results():
        return [
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(
                x.shape[2:], padding, kernel, stride, strict=True
            )
        ]

    _require(
        lambda: _floats(x, weight, *(v for v in (bias, add) if v is not None)),
        lambda: x.dim() == 4 and x.shape[1] > 0 and x.numel() < LARGEST,
        lambda: _is_count(outputs),
        # torch takes one number for all of a list.
        lambda: all(isinstance(v, list) and len(v) == 2 for v in pairs),
        lambda: all(type(n) is int for v in pairs for n in v),
        lambda: min(*kernel, *stride) > 0 and min(padding) >= 0,
        lambda: _is_matrix(
            weight,
            outputs,
            x.shape[1] * kernel[0] * kernel[1],
            kernel == [1, 1] and _is_strassen(weight, x.shape[1]),
        ),
        lambda: all(
            n + 2 * p >= k
            for n, p, k in zip(x.shape[2:], padding, kernel, strict=True)
        ),
        # Padding makes a large result of a map without values, too.
        lambda: math.prod((x.shape[0], outputs, *results())) < LARGEST,
        lambda: bias is None or tuple(bias.shape) == (16 * _blocks(outputs),),
        lambda: (
            add is None
            or tuple(add.shape) == (x.shape[0], outputs, *results())
        ),
        lambda: case['activation'] in _ACTIVATIONS,
    )


def check_halving(case):
    x, weight, bias, outputs, act = case.values()
    _require(
        lambda: _floats(x, weight, *(b for b in (bias,) if b is not None)),
        lambda: x.dim() == 4 and min(x.shape[1:]) > 0,
        lambda: x.numel() < LARGEST,
        lambda: _is_count(outputs),
        lambda: x.numel() // x.shape[1] * outputs < LARGEST,
        lambda: _is_matrix(weight, outputs, 25 * x.shape[1]),
        lambda: bias is None or tuple(bias.shape) == (16 * len(weight),),
        lambda: act in _ACTIVATIONS,
    )


def check_feed_forward(case):
    x, first, second = (case[name] for name in ('x', 'first', 'second'))
    biases = [case['first_bias'], case['second_bias']]
    hidden = case['hidden']
    filters = case['filter'], case['filter_bias']
    maybe = [*biases, *filters, case['add']]
    _require(
        lambda: _floats(
            x, first, second, *(v for v in maybe if v is not None)
        ),
        lambda: x.dim() == 4 and x.shape[1] > 0 and x.numel() < LARGEST,
        lambda: _is_count(hidden),
        lambda: _is_matrix(
            first, hidden, x.shape[1], _is_strassen(first, x.shape[1])
        ),
        lambda: _is_matrix(
            second, x.shape[1], hidden, _is_strassen(first, x.shape[1])
        ),
        lambda: (
            (hidden % 2 == 0 and hidden >= 32)
            or not _is_strassen(first, x.shape[1])
        ),
        lambda: all(
            b is None or tuple(b.shape) == (16 * _blocks(n),)
            for b, n in zip(biases, (hidden, x.shape[1]), strict=True)
        ),
        lambda: filters[0] is not None or filters[1] is None,
        lambda: (
            filters[0] is None
            or tuple(filters[0].shape) == (3, 3, 16 * _blocks(x.shape[1]))
        ),
        lambda: (
            filters[1] is None
            or tuple(filters[1].shape) == (16 * _blocks(x.shape[1]),)
        ),
        lambda: case['add'] is None or case['add'].shape == x.shape,
        lambda: case['activation'] in _ACTIVATIONS,
    )


def check_dense_weight(case, kernel_size=None):
    weight = case['weight']
    _require(
        lambda: _dense(weight) and weight.dtype in DTYPES,
        lambda: weight.dim() == 4 and weight.numel() < LARGEST,
        lambda: kernel_size in (None, tuple(weight.shape[2:])),
    )


def check_pointwise_weight(case):
    check_dense_weight(case, (1, 1))
    channels = case['weight'].shape[1]
    _require(lambda: channels % 2 == 0 and channels >= 32)


def check_gate(case):
    x, z, weight, bias, eps = case.values()
    _require(
        lambda: _floats(x, z, weight, bias),
        lambda: x.dim() == 3 and x.shape == z.shape,
        lambda: x.numel() < LARGEST,
        lambda: weight.shape == bias.shape == x.shape[2:],
        lambda: isinstance(eps, int | float) and 0 <= eps < math.inf,
    )


def check_depthwise_weight(bands, case):
    weight = case['weight']
    _require(
        lambda: _dense(weight) and weight.dtype in DTYPES,
        lambda: weight.dim() == 4 and weight.numel() < LARGEST,
        lambda: weight.shape[1] == 1 and weight.shape[0] % bands == 0,
        lambda: weight.shape[2] == weight.shape[3] and weight.shape[2] % 2,
    )


def check_channel_values(case):
    values = case['values']
    _require(
        lambda: _dense(values) and values.dtype in DTYPES,
        lambda: values.dim() == 1 and values.numel() < LARGEST,
    )


def compare(kind, case, result):
    """Hold a result of ordinary values against PyTorch's own operators.

    Those run in float64: of what an activation leaves, the rounding of their
    own sums can be more than the tolerance.
    """
    case = {
        name: v.double() if isinstance(v, torch.Tensor) else v
        for name, v in case.items()
    }
    if kind in ('selective_scan', 'bidirectional_scan'):
        wanted = getattr(ss, f'{kind}_reference')(**case)
    elif kind == 'gated_layer_norm':
        x, z, weight, bias, eps = case.values()
        assert result.shape == x.shape
        alike = (x == x[..., :1]).all(2)
        if not x.numel() or (eps == 0 and alike.any()):  # 0 / 0
            return
        wanted = F.layer_norm(x, x.shape[2:], weight, bias, eps) * F.silu(z)
    elif kind == 'depthwise_conv2d' and result.numel():
        wanted = _depthwise(**case)
    elif kind == 'dense_conv2d' and result.numel() and case['x'].numel():
        wanted = _convolve(**case)
    elif kind == 'feed_forward' and result.numel():
        wanted = _feed_forward(**case)
    elif kind == 'halving_conv2d' and result.numel():
        wanted = _halve(**case)
    else:
        return
    assert_close(result, wanted, result.dtype, kind)


# Along an axis: the signals as sums of a patch's cells, and which of them each
# of the two results takes.
_SIGNALS = (
    (1, 0, -1, 0, 0),
    (0, 1, 0, 0, 0),
    (0, 0, 1, 0, 0),
    (0, 0, 0, 1, 0),
    (0, 0, -1, 0, 1),
)
_TAKES = ((1, 1, 1, 0, 0), (0, 0, 1, 1, 1))


def _halve(x, weight, bias, channels, activation):
    """Multiply the 25 signals of each patch and sum them, plainly."""
    height, width = ((n + 1) // 2 for n in x.shape[2:])
    # Whole patches of 5x5 cells, four cells apart.
    bottom, right = (-n % 4 for n in x.shape[2:])
    cells = F.pad(x, (1, right, 1, bottom)).unfold(2, 5, 4).unfold(3, 5, 4)
    sums = x.new_tensor(_SIGNALS)
    signals = torch.einsum('bcijkl,mk,nl->bcijmn', cells, sums, sums)
    slots = torch.tensor(ss.inference._TAP_PAIRS).argsort().view(5, 5)
    depth = x.shape[1]
    taps = weight.transpose(0, 1).reshape(25, depth, -1)[slots][..., :channels]
    takes = x.new_tensor(_TAKES)
    y = torch.einsum('bcijmn,mnco,pm,qn->boipjq', signals, taps, takes, takes)
    y = y.flatten(4).flatten(2, 3)[:, :, :height, :width]
    if bias is not None:
        y = y + bias[:channels, None, None]
    return _ACTIVATIONS[activation](y)


def _feed_forward(
    x,
    first,
    first_bias,
    second,
    second_bias,
    hidden,
    activation,
    filter,
    filter_bias,
    add,
):
    if filter is not None:
        x = _depthwise(x, filter, filter_bias, 'none', None, None)
    y = _convolve(x, first, first_bias, hidden, activation=activation)
    y = _convolve(y, second, second_bias, x.shape[1], add=x)
    return y if add is None else y + add


def _depthwise(x, weight, bias, activation, scale, shift):
    channels, side = x.shape[1], weight.shape[0]
    weight = weight.permute(2, 0, 1)[:channels, None]
    y = F.conv2d(x, weight, padding=side // 2, groups=channels)
    bias, scale, shift = (
        default if value is None else value[:channels, None, None]
        for value, default in ((bias, 0), (scale, 1), (shift, 0))
    )
    return _ACTIVATIONS[activation](y + bias) * scale + shift


def _convolve(
    x,
    weight,
    bias,
    channels,
    kernel_size=(1, 1),
    stride=1,
    padding=0,
    activation='none',
    add=None,
):
    bias = None if bias is None else bias[:channels]
    if list(kernel_size) == [1, 1] and _is_strassen(weight, x.shape[1]):
        y = _strassen(x, weight, channels, stride, padding)
        if bias is not None:
            y = y + bias[:, None, None]
    else:
        rows = weight.transpose(1, 2).flatten(0, 1)[:channels]
        kernel = rows.unflatten(1, (*kernel_size, -1)).permute(0, 3, 1, 2)
        y = F.conv2d(x, kernel, bias, stride, padding)
    y = _ACTIVATIONS[activation](y)
    return y if add is None else y + add


def _strassen(x, tiles, outputs, stride, padding):
    """Take the seven products of pairs of cells and sum them, plainly."""
    vertical, horizontal = _pair(padding)
    x = F.pad(x, (horizontal, horizontal, vertical, vertical))
    x = x[:, :, :: _pair(stride)[0], :: _pair(stride)[1]]
    sides, rows = x.shape[2:], x.flatten(2).transpose(1, 2)
    cells, depth = rows.shape[1:]
    even = torch.cat((rows, rows[:, -1:]), dim=1) if cells % 2 else rows
    (a1, a2), (b1, b2) = (even[:, i::2].chunk(2, dim=2) for i in range(2))
    s1 = b1 + b2
    s2 = s1 - a1
    factors = a1, s2, a1 - b1, s1, b2, a2 - s2, a2
    pairs = outputs // 32
    weights = tiles[: 7 * pairs].unflatten(0, (pairs, 7))
    p, u, v, z, second, right, left = (
        torch.einsum('bck,pkn->bcpn', factor, weights[:, i])
        for i, factor in enumerate(factors)
    )
    u = u + p
    v = v + u
    results = (p + left, u + z + right), (v + second, v + z)
    paired = torch.stack([torch.stack(r, dim=3) for r in results], dim=2)
    rest = tiles[7 * pairs :].reshape(-1, depth, 16)
    single = torch.einsum('bck,tkn->bctn', rows, rest).flatten(2)
    paired = paired.flatten(1, 2)[:, :cells].flatten(2)
    y = torch.cat((paired, single), dim=2)[..., :outputs]
    return y.transpose(1, 2).unflatten(2, sides)


def _pair(value):
    return (value, value) if isinstance(value, int) else value

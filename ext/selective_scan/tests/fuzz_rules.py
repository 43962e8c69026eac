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
    """Hold a result of ordinary values against PyTorch's own operators."""
    if kind in ('selective_scan', 'bidirectional_scan'):
        exact = {
            name: v.double() if isinstance(v, torch.Tensor) else v
            for name, v in case.items()
        }
        wanted = getattr(ss, f'{kind}_reference')(**exact)
    elif kind == 'gated_layer_norm':
        x, z, weight, bias, eps = case.values()
        wanted = F.layer_norm(x, x.shape[2:], weight, bias, eps) * F.silu(z)
    elif kind == 'depthwise_conv2d' and result.numel():
        wanted = _depthwise(**case)
    else:
        return
    assert_close(result, wanted, result.dtype, kind)


def _depthwise(x, weight, bias, activation, scale, shift):
    channels, side = x.shape[1], weight.shape[0]
    weight = weight.permute(2, 0, 1)[:channels, None]
    y = F.conv2d(x, weight, padding=side // 2, groups=channels)
    bias, scale, shift = (
        default if value is None else value[:channels, None, None]
        for value, default in ((bias, 0), (scale, 1), (shift, 0))
    )
    return _ACTIVATIONS[activation](y + bias) * scale + shift

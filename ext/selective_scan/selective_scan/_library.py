"""Load the kernels; register fake kernels and autograd formulas."""

import torch

try:
    from . import _C  # noqa: F401  loading registers the operators
except ImportError as error:
    raise ImportError(
        'selective_scan is not built for this Python and torch: run '
        '`pip install --no-build-isolation ./ext/selective_scan`, and import '
        'it from outside its source folder'
    ) from error

_OPS = torch.ops.selective_scan


def built_with_cuda():
    """Return whether the extension holds CUDA kernels.

    Returns:
        bool: True for a build with nvcc.
    """
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        'selective_scan::bidirectional_scan', 'CUDA'
    )


def cpu_variant():
    """Return the name of the CPU code in use.

    Returns:
        str: 'plain', 'avx2' or 'avx512'.
    """
    return _OPS.cpu_variant()


def set_cpu_variant(name):
    """Choose the CPU code, for tests and measurements.

    Args:
        name (str): 'plain', 'avx2', 'avx512', or 'best' for the best one that
            the processor runs, which is what is chosen at the start.

    Raises:
        ValueError: The name is unknown, or the processor lacks it.
    """
    _OPS.set_cpu_variant(name)


def state_dtype(dtype):
    """Return the dtype of states and parameters beside inputs of a dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _channels_last(tensor):
    return tensor.stride(-2) == 1 and tensor.stride(-1) != 1


def _empty_like_layout(tensor):
    """Make an empty dense tensor in the nearer one of the two layouts."""
    if not _channels_last(tensor):
        return tensor.new_empty(tensor.shape)
    return tensor.new_empty(tensor.movedim(-1, 1).shape).movedim(1, -1)


# Fake kernels also answer for tensors on 'meta', and one such argument among
# others on the CPU would get memory that nobody has written.
def _check_fake(**given):
    devices = {k: v.device for k, v in given.items() if v is not None}
    if len(set(devices.values())) > 1:
        raise ValueError(f'all tensors must share one device, got {devices}')


@torch.library.register_fake('selective_scan::selective_scan')
def _(u, delta, A, B, C, D=None, delta_bias=None, *flags):
    _check_fake(u=u, delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    return _empty_like_layout(u)


@torch.library.register_fake('selective_scan::selective_scan_backward')
def _(grad, u, delta, A, B, C, D=None, delta_bias=None, *flags):
    _check_fake(u=u, grad=grad, delta=delta, A=A)
    _check_fake(u=u, B=B, C=C, D=D, delta_bias=delta_bias)
    state = state_dtype(u.dtype)
    parameters = [
        A.new_empty(0, dtype=state)
        if x is None
        else x.new_empty(x.shape, dtype=state)
        for x in (A, D, delta_bias)
    ]
    gradients = [_empty_like_layout(x) for x in (u, delta, B, C)]
    return (*gradients[:2], parameters[0], *gradients[2:], *parameters[1:])


@torch.library.register_fake('selective_scan::bidirectional_scan')
def _(u, proj, dt_proj, dt_bias, A, D):
    _check_fake(u=u, proj=proj, dt_proj=dt_proj, dt_bias=dt_bias, A=A, D=D)
    return _empty_like_layout(u)


@torch.library.register_fake('selective_scan::bidirectional_scan_backward')
def _(grad, u, proj, dt_proj, dt_bias, A, D):
    _check_fake(u=u, grad=grad, proj=proj, dt_proj=dt_proj)
    _check_fake(u=u, dt_bias=dt_bias, A=A, D=D)
    parameters = [x.new_empty(x.shape) for x in (dt_proj, dt_bias, A, D)]
    return (_empty_like_layout(u), _empty_like_layout(proj), *parameters)


def _empty_map(x, *sizes):
    return x.new_empty(sizes).contiguous(memory_format=torch.channels_last)


@torch.library.register_fake('selective_scan::depthwise_conv2d')
def _(x, weight, bias=None, activation='none', scale=None, shift=None):
    _check_fake(x=x, weight=weight, bias=bias, scale=scale, shift=shift)
    return _empty_map(x, *x.shape)


@torch.library.register_fake('selective_scan::packed_wavelet_conv2d')
def _(x, weight):
    _check_fake(x=x, weight=weight)
    return _empty_map(x, *x.shape)


def _empty_like_map(x):
    """Make an empty dense map in the nearer one of the two layouts."""
    last = x.stride(1) == 1 and x.stride(3) != 1
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(
        x.shape, dtype=x.dtype, device=x.device, memory_format=layout
    )


@torch.library.register_fake('selective_scan::wavelet_conv2d')
def _(x, weight):
    _check_fake(x=x, weight=weight)
    return _empty_like_map(x)


@torch.library.register_fake('selective_scan::wavelet_conv2d_backward')
def _(grad, x, weight):
    _check_fake(x=x, grad=grad, weight=weight)
    return _empty_like_map(x), weight.new_empty(weight.shape)


@torch.library.register_fake('selective_scan::gated_layer_norm')
def _(x, z, weight, bias, eps):
    _check_fake(x=x, z=z, weight=weight, bias=bias)
    return _empty_like_layout(x)


@torch.library.register_fake('selective_scan::gated_layer_norm_backward')
def _(grad, x, z, weight, bias, eps):
    _check_fake(x=x, grad=grad, z=z, weight=weight, bias=bias)
    parameters = [p.new_empty(p.shape) for p in (weight, bias)]
    return (_empty_like_layout(x), _empty_like_layout(z), *parameters)


@torch.library.register_fake('selective_scan::dense_conv2d')
def _(
    x, weight, bias, channels, kernel_size, stride, padding, activation, add
):
    _check_fake(x=x, weight=weight, bias=bias, add=add)
    sides = [
        (side + 2 * pad - kernel) // step + 1
        for side, kernel, step, pad in zip(
            x.shape[2:], kernel_size, stride, padding, strict=True
        )
    ]
    return _empty_map(x, x.shape[0], channels, *sides)


@torch.library.register_fake('selective_scan::feed_forward')
def _(x, first, first_bias, second, second_bias, hidden, act, *around):
    _check_fake(x=x, first=first, second=second, first_bias=first_bias)
    filters = dict(zip(('filter', 'filter_bias', 'add'), around))
    _check_fake(x=x, second_bias=second_bias, **filters)
    return _empty_map(x, *x.shape)


def _save(ctx, inputs, output):
    ctx.given = [isinstance(x, torch.Tensor) for x in inputs]
    ctx.save_for_backward(*[x for x, t in zip(inputs, ctx.given) if t])
    ctx.others = [None if t else x for x, t in zip(inputs, ctx.given)]


def _make_backward(operator):
    def backward(ctx, grad):
        saved = iter(ctx.saved_tensors)
        given = list(zip(ctx.given, ctx.others, strict=True))
        inputs = [next(saved) if t else other for t, other in given]
        # Flags and numbers come last; an absent tensor has a gradient, too.
        gradients = operator(grad, *inputs)
        gradients = [g if t else None for g, t in zip(gradients, ctx.given)]
        return (*gradients, *[None] * (len(inputs) - len(gradients)))

    return backward


def _not_twice(ctx, *grads):
    raise NotImplementedError(
        'selective_scan has no second derivative: use the reference for it'
    )


for _name in (
    'selective_scan',
    'bidirectional_scan',
    'wavelet_conv2d',
    'gated_layer_norm',
):
    torch.library.register_autograd(
        f'selective_scan::{_name}',
        _make_backward(getattr(_OPS, f'{_name}_backward')),
        setup_context=_save,
    )
    torch.library.register_autograd(
        f'selective_scan::{_name}_backward', _not_twice
    )

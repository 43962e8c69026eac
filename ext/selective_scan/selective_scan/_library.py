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


def _empty_like_layout(tensor):
    """Make an empty dense tensor in the nearer one of the two layouts."""
    if tensor.stride(-2) == 1 and tensor.stride(-1) != 1:
        return tensor.new_empty(tensor.movedim(-1, 1).shape).movedim(1, -1)
    return tensor.new_empty(tensor.shape)


def _empty_map(x, *sizes, layout=torch.channels_last):
    return x.new_empty(sizes).contiguous(memory_format=layout)


def _empty_like_map(x):
    """Make the same of a map (batch, channels, height, width)."""
    last = x.stride(1) == 1 and x.stride(3) != 1
    layout = torch.channels_last if last else torch.contiguous_format
    return _empty_map(x, *x.shape, layout=layout)


def _fake(name):
    """Register a fake kernel; all tensors must share one device.

    Fake kernels also answer for tensors on 'meta', and one such argument
    among others on the CPU would get memory that nobody has written.
    """

    names = [
        argument.name
        for argument in getattr(_OPS, name).default._schema.arguments
    ]

    def register(kernel):
        @torch.library.register_fake(f'selective_scan::{name}')
        def checked(*args):
            devices = {
                name: x.device
                for name, x in zip(names, args)
                if torch.is_tensor(x)
            }
            if len(set(devices.values())) > 1:
                raise ValueError(
                    f'all tensors must share one device, got {devices}'
                )
            return kernel(*args)

    return register


@_fake('selective_scan')
def _(u, *others):
    return _empty_like_layout(u)


@_fake('selective_scan_backward')
def _(grad, u, delta, A, B, C, D=None, delta_bias=None, *flags):
    parameters = [
        A.new_empty(0 if x is None else x.shape, dtype=state_dtype(u.dtype))
        for x in (A, D, delta_bias)
    ]
    gradients = [_empty_like_layout(x) for x in (u, delta, B, C)]
    return (*gradients[:2], parameters[0], *gradients[2:], *parameters[1:])


@_fake('bidirectional_scan')
def _(u, *others):
    return _empty_like_layout(u)


@_fake('bidirectional_scan_backward')
def _(grad, u, proj, *parameters):
    gradients = [x.new_empty(x.shape) for x in parameters]
    return (_empty_like_layout(u), _empty_like_layout(proj), *gradients)


@_fake('wavelet_conv2d')
def _(x, weight):
    return _empty_like_map(x)


@_fake('wavelet_conv2d_backward')
def _(grad, x, weight):
    return _empty_like_map(x), weight.new_empty(weight.shape)


@_fake('gated_layer_norm')
def _(x, *others):
    return _empty_like_layout(x)


@_fake('gated_layer_norm_backward')
def _(grad, x, z, weight, bias, *eps):
    parameters = [p.new_empty(p.shape) for p in (weight, bias)]
    return (_empty_like_layout(x), _empty_like_layout(z), *parameters)


@_fake('depthwise_conv2d')
def _(x, *others):
    return _empty_map(x, *x.shape)


@_fake('packed_wavelet_conv2d')
def _(x, weight):
    return _empty_map(x, *x.shape)


@_fake('dense_conv2d')
def _(x, weight, bias, channels, kernel=(1, 1), stride=(1, 1), *others):
    padding = others[0] if others else (0, 0)
    sides = [
        (size + 2 * pad - side) // step + 1
        for size, side, step, pad in zip(x.shape[2:], kernel, stride, padding)
    ]
    return _empty_map(x, x.shape[0], channels, *sides)


@_fake('feed_forward')
def _(x, *others):
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

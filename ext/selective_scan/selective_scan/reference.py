"""The same functions in plain PyTorch, scans one token after the other.

Slow, differentiable by autograd, in any floating dtype: what the kernels are
tested against. Each takes the arguments of the function that it is named
after, and returns a tensor of the first argument's shape and dtype.
"""

import torch
import torch.nn.functional as F

from ._library import state_dtype


def selective_scan_reference(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    delta_bias=None,
    delta_softplus=False,
    reverse=False,
):
    """Compute ``selective_scan`` token by token in plain PyTorch."""
    dtype = u.dtype
    state = state_dtype(dtype)
    u, delta, A, B, C = (x.to(state) for x in (u, delta, A, B, C))
    batch, dim, length = u.shape
    groups = B.shape[1]
    if delta_bias is not None:
        delta = delta + delta_bias.to(state)[:, None]
    if delta_softplus:
        delta = F.softplus(delta, threshold=40)
    B = B.repeat_interleave(dim // groups, dim=1)  # batch, dim, state, length
    C = C.repeat_interleave(dim // groups, dim=1)
    hidden = u.new_zeros(batch, dim, A.shape[1])
    # Unbinding once keeps autograd's work linear in the length.
    us, steps, Bs, Cs = (x.unbind(-1) for x in (u, delta, B, C))
    outputs = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        step = steps[t][..., None]
        drive = step * Bs[t] * us[t][..., None]
        hidden = torch.exp(step * A) * hidden + drive
        outputs[t] = (hidden * Cs[t]).sum(-1)
    y = torch.stack(outputs, dim=-1) if length else torch.zeros_like(u)
    if D is not None:
        y = y + D.to(state)[:, None] * u
    return y.to(dtype)


def bidirectional_scan_reference(u, proj, dt_proj, dt_bias, A, D):
    """Compute ``bidirectional_scan`` token by token in plain PyTorch."""
    dtype = u.dtype
    state = state_dtype(dtype)
    u, proj = u.to(state), proj.to(state)
    rank, states = dt_proj.shape[2], A.shape[2]
    y = torch.zeros_like(u)
    for k in range(dt_proj.shape[0]):
        dt, B, C = proj[:, k].split([rank, states, states], dim=1)
        y = y + selective_scan_reference(
            u,
            dt_proj[k].to(state) @ dt,
            A[k],
            B[:, None],
            C[:, None],
            D[k],
            dt_bias[k],
            delta_softplus=True,
            reverse=k == 1,
        )
    return y.to(dtype)


def wavelet_conv2d_reference(x, weight, scale=None):
    """Compute ``wavelet_conv2d`` by PyTorch's convolutions."""
    dtype = x.dtype
    state = state_dtype(dtype)
    channels, height, width = x.shape[1:]
    low, high = x.new_tensor([[1, 1], [1, -1]], dtype=state) * 0.5**0.5
    haar = torch.stack(
        [torch.outer(h, w) for w in (low, high) for h in (low, high)]
    )
    haar = haar[:, None].repeat(channels, 1, 1, 1)  # 4 * channels, 1, 2, 2
    padded = F.pad(x.to(state), (0, width % 2, 0, height % 2))
    bands = F.conv2d(padded, haar, stride=2, groups=channels)
    bands = F.conv2d(
        bands,
        weight.to(state),
        padding=weight.shape[-1] // 2,
        groups=4 * channels,
    )
    if scale is not None:
        bands = bands * scale.to(state).reshape(-1, 1, 1)
    y = F.conv_transpose2d(bands, haar, stride=2, groups=channels)
    return y[:, :, :height, :width].to(dtype)


def gated_layer_norm_reference(x, z, weight, bias, eps=1e-5):
    """Compute ``gated_layer_norm`` by PyTorch's norm and activation."""
    dtype = x.dtype
    state = state_dtype(dtype)
    norm = F.layer_norm(
        x.to(state).mT, x.shape[1:2], weight.to(state), bias.to(state), eps
    )
    return (norm.mT * F.silu(z.to(state))).to(dtype)

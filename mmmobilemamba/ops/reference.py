"""The scan operators as plain loops: slow, exact, the measure of the rest.

Every faster form, in this package or in the extension, must agree with these
functions in value and gradient. The state takes float64 where the input does,
float32 otherwise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def state_dtype(u: Tensor) -> torch.dtype:
    """Return the dtype in which the state is kept for an input ``u``."""
    return torch.promote_types(u.dtype, torch.float32)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Tensor:
    """Run the selective scan token by token.

    ``h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t``, ``y_t = C_t h_t + D
    u_t``. See :func:`mmmobilemamba.ops.selective_scan` for the arguments.

    Source: Mamba (arXiv:2312.00752), equation 2 with the simplified
    discretisation of B.
    """
    dtype = state_dtype(u)
    _, dim, length = u.shape
    repeat = dim // B.shape[1]
    x = u.to(dtype)
    step = delta.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        step = F.softplus(step)
    A = A.to(dtype)
    B = B.to(dtype).repeat_interleave(repeat, dim=1)  # (batch, dim, N, L)
    C = C.to(dtype).repeat_interleave(repeat, dim=1)
    h = x.new_zeros(*x.shape[:2], A.shape[1])
    y: list = [None] * length
    order = range(length)
    for t in reversed(order) if reverse else order:
        decay = torch.exp(step[..., t, None] * A)
        h = decay * h + (step[..., t] * x[..., t])[..., None] * B[..., t]
        y[t] = (h * C[..., t]).sum(-1)
    out = torch.stack(y, -1) if length else torch.zeros_like(x)
    if D is not None:
        out = out + x * D.to(dtype)[:, None]
    return out.to(u.dtype)


def bidirectional_scan(
    u: Tensor,
    proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
) -> Tensor:
    """Compose the bidirectional scan from :func:`selective_scan`.

    See :func:`mmmobilemamba.ops.bidirectional_scan` for the arguments.

    Source: MobileMamba (arXiv:2411.15941), section 3.3.
    """
    dtype = state_dtype(u)
    rank, state = dt_proj.shape[2], A.shape[2]
    rows = proj.to(dtype)
    out = 0
    for k in range(proj.shape[1]):
        dt, B, C = rows[:, k].split([rank, state, state], dim=1)
        out = out + selective_scan(
            u.to(dtype),
            torch.einsum('dr,brl->bdl', dt_proj[k].to(dtype), dt),
            A[k],
            B[:, None],
            C[:, None],
            D[k],
            dt_bias[k],
            delta_softplus=True,
            reverse=k == 1,
        )
    return out.to(u.dtype)

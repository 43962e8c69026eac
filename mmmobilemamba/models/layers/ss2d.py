"""Two-dimensional selective scan (SS2D) on a feature map."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import ops
from .conv import ConvBN


class SS2D(nn.Module):
    """Gated selective scan over the tokens of a map in 1, 2 or 4 orders.

    Directions come in the order row-major, then (with four) column-major,
    then the same reversed. Every projection commutes with the order of the
    tokens, so all directions share one 1x1 convolution.

    Args:
        dim (int): Channels of input and output.
        ssm_ratio (float): Inner channels over ``dim``. Defaults to 2.
        d_state (int): State size of the scan. Defaults to 1.
        scan_directions (int): 1, 2 or 4. Defaults to 2.

    Source: architecture as in MobileMamba (arXiv:2411.15941), section 3.3;
    four directions as in VMamba (arXiv:2401.10166).
    """

    def __init__(
        self,
        dim: int,
        ssm_ratio: float = 2,
        d_state: int = 1,
        scan_directions: int = 2,
    ):
        super().__init__()
        self.inner = inner = int(ssm_ratio * dim)
        self.rank = rank = math.ceil(dim / 16)
        self.d_state = d_state
        self.directions = k = scan_directions
        self.backend = ops.scan_backend()
        self.in_proj = ConvBN(dim, 2 * inner)
        self.dwconv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.act = nn.SiLU()
        self.x_proj_weight = nn.Parameter(
            torch.empty(k, rank + 2 * d_state, inner)
        )
        self.dt_proj_weight = nn.Parameter(torch.empty(k, inner, rank))
        self.dt_proj_bias = nn.Parameter(torch.empty(k, inner))
        self.A_log = nn.Parameter(torch.empty(k * inner, d_state))
        self.D = nn.Parameter(torch.empty(k * inner))
        self.out_norm = nn.LayerNorm(inner, eps=1e-5)
        self.out_proj = ConvBN(inner, dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give the scan's own parameters their initial values."""
        bound = 1 / math.sqrt(self.inner)  # as nn.Linear's default
        nn.init.uniform_(self.x_proj_weight, -bound, bound)
        nn.init.uniform_(self.dt_proj_weight, 0, 0.1)
        nn.init.uniform_(self.dt_proj_bias, 0, 0.1)
        # S4D-real: A = -1, ..., -N; with one state A_log is 0.
        decay = torch.arange(1, self.d_state + 1, dtype=self.A_log.dtype)
        self.A_log.copy_(decay.log().expand_as(self.A_log))
        nn.init.ones_(self.D)

    def project(self, x: Tensor) -> Tensor:
        """Project (batch, inner, H, W) to rows dt, B, C per direction."""
        return F.conv2d(x, self.x_proj_weight.flatten(0, 1)[..., None, None])

    def decay(self) -> Tensor:
        """Return A, (directions * inner, state), in the state's dtype."""
        dtype = torch.promote_types(self.A_log.dtype, torch.float32)
        return -torch.exp(self.A_log.to(dtype))

    def scan(self, x: Tensor, proj: Tensor, A: Tensor) -> Tensor:
        """Scan (batch, inner, H, W) to (batch, inner, H * W), all orders."""
        height, width = x.shape[2:]
        proj = proj.unflatten(1, (self.directions, -1))
        A = A.view(self.directions, self.inner, self.d_state)
        D = self.D.view(self.directions, self.inner)

        def both_ways(x: Tensor, proj: Tensor, ks: slice) -> Tensor:
            return ops.bidirectional_scan(
                x.flatten(2),
                proj[:, ks].flatten(3),
                self.dt_proj_weight[ks],
                self.dt_proj_bias[ks],
                A[ks],
                D[ks],
                self.backend,
            )

        if self.directions < 4:
            return both_ways(x, proj, slice(None))
        rows = both_ways(x, proj, slice(0, None, 2))
        columns = both_ways(
            x.transpose(2, 3), proj.transpose(3, 4), slice(1, None, 2)
        ).unflatten(2, (width, height))
        return rows + columns.transpose(2, 3).flatten(2)

    def gate(self, y: Tensor, z: Tensor) -> Tensor:
        """Normalise tokens (batch, inner, H * W), gate them with a map."""
        gates = z.flatten(2)
        y = ops.gated_layer_norm(y, gates, self.out_norm, self.backend)
        return y.unflatten(2, z.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, dim, H, W) to the same shape."""
        x, z = self.in_proj(x).chunk(2, dim=1)
        x = self.act(self.dwconv(x))
        y = self.scan(x, self.project(x), self.decay())
        return self.out_proj(self.gate(y, z))

"""Two-dimensional selective scan (SS2D) on a feature map."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops import (
    PackCache,
    PacksWeights,
    bidirectional_scan,
    scan_backend,
    state_dtype,
)
from .conv_bn import ConvBN
from .fused_conv import FusedConv2d, infer_conv2d

SCAN_DIRECTIONS = (1, 2, 4)


class SS2D(PacksWeights, nn.Module):
    """Gated selective scan over the tokens of a map in 1, 2 or 4 orders.

    Directions come in the order row-major, then (with four) column-major,
    then the same reversed. Every projection commutes with the order of the
    tokens, so all directions share one 1x1 convolution.

    Args:
        dim (int): Channels of input and output.
        ssm_ratio (float): Inner channels over ``dim``. Defaults to 2.
        d_state (int): State size of the scan. Defaults to 1.
        scan_directions (int): 1, 2 or 4. Defaults to 2.
        norm_cfg (dict, optional): Config of BatchNorm. Defaults to None.
        deploy (bool): Build the fused form. Defaults to False.

    Source: architecture as in MobileMamba (arXiv:2411.15941), section 3.3;
    four directions as in VMamba (arXiv:2401.10166).
    """

    def __init__(
        self,
        dim: int,
        ssm_ratio: float = 2,
        d_state: int = 1,
        scan_directions: int = 2,
        norm_cfg: dict | None = None,
        deploy: bool = False,
    ):
        super().__init__()
        self.inner = inner = int(ssm_ratio * dim)
        self.rank = rank = math.ceil(dim / 16)
        self.d_state = d_state
        self.directions = directions = scan_directions
        self.backend = scan_backend()
        self._packs = PackCache()

        self.in_proj = ConvBN(dim, 2 * inner, norm_cfg=norm_cfg, deploy=deploy)
        self.dwconv = FusedConv2d(inner, inner, 3, padding=1, groups=inner)
        self.act = nn.SiLU()
        self.x_proj_weight = nn.Parameter(
            torch.empty(directions, rank + 2 * d_state, inner)
        )
        self.dt_proj_weight = nn.Parameter(
            torch.empty(directions, inner, rank)
        )
        self.dt_proj_bias = nn.Parameter(torch.empty(directions, inner))
        self.A_log = nn.Parameter(torch.empty(directions * inner, d_state))
        self.D = nn.Parameter(torch.empty(directions * inner))
        self.out_norm = nn.LayerNorm(inner, eps=1e-5)
        self.out_proj = ConvBN(inner, dim, norm_cfg=norm_cfg, deploy=deploy)
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

    def _decay(self) -> Tensor:
        """Return A, (directions, inner, state), in the state's dtype."""

        def decay(A_log: Tensor) -> Tensor:
            A_log = A_log.to(state_dtype(A_log))
            return -torch.exp(A_log).view(self.directions, self.inner, -1)

        if self.infers_on_cpu(self.A_log.data):
            return self._packs.get('A', decay, self.A_log)
        return decay(self.A_log)

    def _project(self, x: Tensor) -> Tensor:
        """Project (batch, inner, H, W) to rows dt, B, C per direction."""
        weight = self.x_proj_weight.flatten(0, 1)[:, :, None, None]
        if self.infers_on_cpu(x):
            proj = infer_conv2d(x, self._packs, self.backend, weight)
        else:
            proj = F.conv2d(x, weight)
        return proj.unflatten(1, (self.directions, -1))

    def _scan(self, x: Tensor, proj: Tensor, ks: slice) -> Tensor:
        """Scan (batch, inner, H, W) in the directions ``ks``."""
        return bidirectional_scan(
            x.flatten(2),
            proj[:, ks].flatten(3),
            self.dt_proj_weight[ks],
            self.dt_proj_bias[ks],
            self._decay()[ks],
            self.D.view(self.directions, self.inner)[ks],
            backend=self.backend,
        )

    def _gate(self, y: Tensor, z: Tensor) -> Tensor:
        """Normalise (batch, inner, H * W) and gate it with ``z``'s map."""
        y = self.out_norm(y.mT).mT
        return y.unflatten(2, z.shape[2:]) * self.act(z)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Mix the tokens of a map.

        Args:
            x (Tensor): Map (batch, dim, H, W).
            add (Tensor, optional): Added to the result, of its shape.
                Defaults to None.

        Returns:
            Tensor: Map of the shape of ``x``.
        """
        height, width = x.shape[2:]
        x, z = self.in_proj(x).chunk(2, dim=1)
        x = self.dwconv(x, act='silu')
        proj = self._project(x)
        if self.directions == 4:
            y = self._scan(x, proj, slice(0, None, 2))
            columns = self._scan(
                x.transpose(2, 3), proj.transpose(3, 4), slice(1, None, 2)
            )
            y = y + columns.unflatten(2, (width, height)).transpose(
                2, 3
            ).flatten(2)
        else:
            y = self._scan(x, proj, slice(None))
        return self.out_proj(self._gate(y, z), add=add)

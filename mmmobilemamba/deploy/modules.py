"""Parts of the network as graphs of few and large standard operators.

Each takes the parameters of the layer that it stands for, deployed before,
and computes the same. The layers are written to be trained, these to be
exported: they are read by a tracer once and by a runtime ever after.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from ..models.backbones import MobileMamba
from ..models.layers import SS2D
from ..models.layers.mixer import GlobalPath, Mixer
from .scan import call, linear_recurrence
from .widths import ExportMixer, can_share, pad_stem

# Sums and differences along both axes, halved; symmetric, its own inverse.
# Rows are subbands (low low, high low, low high, high high; height first),
# columns the pixels of a cell (top left, top right, bottom left and right).
_HAAR = (
    (0.5, 0.5, 0.5, 0.5),
    (0.5, 0.5, -0.5, -0.5),
    (0.5, -0.5, 0.5, -0.5),
    (0.5, -0.5, -0.5, 0.5),
)


class _SpaceToDepth(Function):
    """Collect the pixels of 2x2 cells: channel = pixel * channels + c."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        batch, c, height, width = x.shape
        x = x.reshape(batch, c, height // 2, 2, width // 2, 2)
        x = x.permute(0, 3, 5, 1, 2, 4)
        return x.reshape(batch, 4 * c, height // 2, width // 2)

    @staticmethod
    def symbolic(g, x):
        return g.op('SpaceToDepth', x, blocksize_i=2)


class _DepthToSpace(Function):
    """Undo :class:`_SpaceToDepth`."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        batch, c, height, width = x.shape
        x = x.reshape(batch, 2, 2, c // 4, height, width)
        x = x.permute(0, 3, 4, 1, 5, 2)
        return x.reshape(batch, c // 4, 2 * height, 2 * width)

    @staticmethod
    def symbolic(g, x):
        return g.op('DepthToSpace', x, blocksize_i=2)


class ExportWavelet(nn.Module):
    """The wavelet path, subbands side by side instead of interleaved.

    Args:
        path (GlobalPath): Deployed path whose filters are taken.
        fixed_size (bool): The size of the map is known while tracing.
    """

    def __init__(self, path: GlobalPath, fixed_size: bool):
        super().__init__()
        self.fixed_size = fixed_size
        self.convs = nn.ModuleList()
        for conv in path.wavelet_convs:
            # channel 4 c + band -> band * channels + c
            weight = conv.weight.detach().unflatten(0, (-1, 4)).transpose(0, 1)
            other = nn.Conv2d(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size,
                padding=conv.padding,
                groups=conv.groups,
                bias=False,
            )
            other.weight = nn.Parameter(weight.flatten(0, 1).clone())
            self.convs.append(other)
        self.register_buffer('haar', torch.tensor(_HAAR), persistent=False)

    def _mix(self, x: Tensor) -> Tensor:
        """Multiply the four groups of channels with the Haar matrix."""
        batch, c, height, width = x.shape
        x = self.haar.to(x.dtype) @ x.reshape(batch, 4, -1)
        return x.reshape(batch, c, height, width)

    def _filter(self, x: Tensor, level: int) -> Tensor:
        height, width = x.shape[2:]
        even = False
        if self.fixed_size:
            height, width = int(height), int(width)
            even = height % 2 == width % 2 == 0
        if not even:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        bands = self._mix(call(_SpaceToDepth, x))
        y = self.convs[level](bands)
        if level + 1 < len(self.convs):
            low, rest = y.split([y.shape[1] // 4, 3 * y.shape[1] // 4], dim=1)
            deeper = self._filter(bands[:, : bands.shape[1] // 4], level + 1)
            y = torch.cat((low + deeper, rest), dim=1)
        y = call(_DepthToSpace, self._mix(y))
        return y if even else y[:, :, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, dim, H, W) to the same shape."""
        return self._filter(x, 0)


class ExportSS2D(nn.Module):
    """The gated selective scan, its directions side by side.

    Args:
        layer (SS2D): Deployed layer whose parameters are taken.
        fixed_size (bool): The size of the map is known while tracing.
        form (str): Form of the recurrence, see
            :func:`mmmobilemamba.deploy.scan.linear_recurrence`.
            Defaults to ``'chunked'``.
        chunk (int, optional): Tokens of a chunk. Defaults to None, what
            suits the length.
    """

    def __init__(
        self,
        layer: SS2D,
        fixed_size: bool,
        form: str = 'chunked',
        chunk: int | None = None,
    ):
        super().__init__()
        self.fixed_size, self.form, self.chunk = fixed_size, form, chunk
        self.directions, self.state = layer.directions, layer.d_state
        inner, rank = layer.inner, layer.rank
        self.rank = rank
        conv = layer.in_proj.conv
        self.to_x, self.to_z = (
            _conv1x1(weight, bias)
            for weight, bias in zip(
                conv.weight.chunk(2), conv.bias.chunk(2), strict=True
            )
        )
        self.dwconv, self.out_norm = layer.dwconv, layer.out_norm
        self.out_proj = layer.out_proj.conv

        def constant(name: str, value: Tensor) -> None:
            self.register_buffer(name, value.detach().clone())

        # (K, inner, rank + 2 N), (K, rank, inner), (K, 1, inner)
        constant('x_proj', layer.x_proj_weight.transpose(1, 2))
        constant('dt_proj', layer.dt_proj_weight.transpose(1, 2))
        constant('dt_bias', layer.dt_proj_bias[:, None])
        A = -torch.exp(layer.A_log.double()).to(layer.A_log.dtype)
        constant('A', A.view(self.directions, 1, inner, self.state))
        constant('D', layer.D.view(self.directions, inner).sum(0))

    def _scan(self, x: Tensor, length: int | None) -> Tensor:
        """Scan (batch, K, L, inner), each direction from its first token."""
        dt, B, C = (x @ self.x_proj).split(
            [self.rank, self.state, self.state], dim=-1
        )
        step = softplus(dt @ self.dt_proj + self.dt_bias)
        inflow = step * x
        if self.state == 1:
            a, b = torch.exp(step * self.A.squeeze(-1)), inflow * B
            h = linear_recurrence(a, b, length, self.form, self.chunk)
            return h * C
        # (batch, K, L, inner, N), as one row of channels for the recurrence
        a = torch.exp(step[..., None] * self.A)
        b = inflow[..., None] * B[..., None, :]
        h = linear_recurrence(
            a.flatten(3), b.flatten(3), length, self.form, self.chunk
        )
        h = h.unflatten(3, (-1, self.state))
        return (h * C[..., None, :]).sum(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, dim, H, W) to the same shape."""
        height, width = x.shape[2:]
        length = None
        if self.fixed_size:
            height, width = int(height), int(width)
            length = height * width
        z = F.silu(self.to_z(x))
        x = F.silu(self.dwconv(self.to_x(x)))
        rows = x.permute(0, 2, 3, 1).flatten(1, 2)  # (batch, L, inner)
        orders = [rows]
        if self.directions == 4:
            orders.append(x.transpose(2, 3).flatten(2).transpose(1, 2))
        if self.directions > 1:
            orders += [order.flip(1) for order in orders]
        y = self._scan(torch.stack(orders, 1), length).unbind(1)
        if self.directions > 1:
            half = self.directions // 2
            y = [y[i] + y[half + i].flip(1) for i in range(half)]
        total = torch.addcmul(y[0], rows, self.D)
        if self.directions == 4:
            columns = y[1].unflatten(1, (width, height)).transpose(1, 2)
            total = total + columns.flatten(1, 2)
        y = self.out_norm(total).unflatten(1, (height, width))
        return self.out_proj(y.permute(0, 3, 1, 2) * z)


def softplus(x: Tensor) -> Tensor:
    """Compute log(1 + exp(x)) without overflow, by fast operators.

    onnxruntime computes the operator Softplus slowly; OpenVINO has no fast
    logarithm, but knows this one for a Softplus.
    """
    # Beyond 30 nothing is left of the 1.
    return torch.maximum(x, torch.log(torch.exp(x.clamp(max=30.0)) + 1))


def _conv1x1(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    conv.weight = nn.Parameter(weight.detach().clone())
    conv.bias = nn.Parameter(bias.detach().clone())
    return conv


class ExportGlobalPath(nn.Module):
    """Scan and wavelet path side by side.

    Args:
        path (GlobalPath): Deployed path.
        **kwargs: ``fixed_size``, ``form`` and ``chunk`` of
            :class:`ExportSS2D`.
    """

    def __init__(self, path: GlobalPath, fixed_size: bool, **kwargs):
        super().__init__()
        self.ss2d = ExportSS2D(path.ss2d, fixed_size, **kwargs)
        self.wavelet = None
        if len(path.wavelet_convs):
            self.wavelet = ExportWavelet(path, fixed_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, dim, H, W) to the same shape."""
        y = self.ss2d(x)
        return y if self.wavelet is None else y + self.wavelet(x)


def make_exportable(module: nn.Module, fixed_size: bool, **kwargs) -> None:
    """Replace the mixers and global paths within a network, in place.

    Args:
        module (nn.Module): Network; what is replaced gets deployed.
        fixed_size (bool): The size of the picture is known while tracing.
        **kwargs: ``form`` and ``chunk`` of :class:`ExportSS2D`.
    """
    for name, child in module.named_children():
        if isinstance(child, GlobalPath):
            # Children come before their parents, which fold what is left.
            for part in reversed(list(child.modules())):
                if hasattr(part, 'switch_to_deploy'):
                    part.switch_to_deploy()
            setattr(
                module, name, ExportGlobalPath(child, fixed_size, **kwargs)
            )
            continue
        if isinstance(child, MobileMamba):
            pad_stem(child)
        elif isinstance(child, Mixer) and can_share(child):
            child = ExportMixer(child)
            setattr(module, name, child)
        make_exportable(child, fixed_size, **kwargs)

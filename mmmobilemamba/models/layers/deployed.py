"""The deployed form: layers with norms, scales and shortcuts folded in.

Each class takes the place of a layer of the training form, whose forward it
computes, with weights of the same names. On a CPU, in float32 and without
gradients, the operators of the extension run, with weights that are packed
once; PyTorch's own run anywhere else.
"""

import copy
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ... import ops
from .block import Downsample, MobileMambaBlock, Stem
from .conv import ConvBN, ResidualDWConv, ResidualFFN
from .mixer import GlobalPath, LocalPart, Mixer
from .ss2d import SS2D

# Input channels below which oneDNN's convolution is the faster one: its code
# is made for one number of channels, as that of an image.
FEW_CHANNELS = 8


@torch.no_grad()
def deploy_layers(module: nn.Module) -> None:
    """Put the deployed form of a network's trained layers in their place."""
    for name, child in module.named_children():
        if type(child) in _DEPLOYED:
            deployed = _DEPLOYED[type(child)](child)
            setattr(module, name, deployed.train(child.training))
        else:
            deploy_layers(child)


class Deployed(nn.Module):
    """Base of what takes a trained layer's settings, weights and children.

    What it makes from its own weights are buffers that no state dict holds.
    They are made anew when weights are loaded, moved, exchanged or changed in
    place.
    """

    # Convolutions whose activation they take over, and its name.
    activated: dict[str, str] = {}

    def __init__(self, layer: nn.Module):
        nn.Module.__init__(self)
        for name, value in vars(layer).items():
            self.__dict__[name] = copy.copy(value)
        for name, act in self.activated.items():
            conv = getattr(layer, name)
            fused = FusedConvBN if isinstance(conv, ConvBN) else FusedConv2d
            kind = type(getattr(layer, act)).__name__.lower()
            setattr(self, name, fused(conv, kind))
            setattr(self, act, nn.Identity())
        deploy_layers(self)
        self.backend = getattr(layer, 'backend', None) or ops.scan_backend()
        self._seen: list | None = None

    def pack(self, kernels: ModuleType | None) -> dict[str, Tensor | None]:
        """Make the buffers; ``packed_weight`` is for ``kernels``, if any."""
        return {}

    def keep_fresh(self, force: bool = False) -> None:
        """Make the buffers anew where the weights are no longer those."""
        weights = [w for w in self._parameters.values() if w is not None]
        seen = [
            (w.data_ptr(), 0 if w.is_inference() else w._version)
            for w in weights
        ]
        if seen == self._seen and not force:
            return
        fits = self.backend == 'extension' and all(
            w.device.type == 'cpu' and w.dtype == torch.float32
            for w in weights
        )
        kernels = ops.find_extension().inference if fits else None
        with torch.inference_mode(False), torch.no_grad():
            for name, value in self.pack(kernels).items():
                self.register_buffer(name, value, persistent=False)
        self._seen = seen

    def _apply(self, *args, **kwargs) -> 'Deployed':
        super()._apply(*args, **kwargs)
        self.keep_fresh(force=True)
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.keep_fresh(force=True)

    def train(self, mode: bool = True) -> 'Deployed':
        """Set the mode; exchanged through ``data``, weights leave no trace."""
        super().train(mode)
        self.keep_fresh(force=True)
        return self


def kernels_for(x: Tensor, *layers: Deployed) -> ModuleType | None:
    """Return the extension's operators where they serve a map and layers:
    in float32, on the CPU, without gradients, and not for who reads a graph.
    """
    if (
        ops.is_exporting()
        or x.device.type != 'cpu'
        or x.dtype != torch.float32
        or torch.is_grad_enabled()
    ):
        return None
    if not torch.compiler.is_compiling():
        if type(x) is not Tensor or torch.is_autocast_enabled('cpu'):
            return None
        for layer in layers:
            layer.keep_fresh()
    if any(layer.packed_weight is None for layer in layers):
        return None
    return ops.find_extension().inference


class FusedConv2d(Deployed, nn.Conv2d):
    """Convolution with bias, activation (none, relu or silu), and a sum."""

    def __init__(self, conv: nn.Conv2d, act: str = 'none'):
        super().__init__(conv)
        self.act = act

    def pack(self, kernels: ModuleType | None) -> dict[str, Tensor | None]:
        weight = bias = None
        dense = self.groups == 1 and self.in_channels >= FEW_CHANNELS
        if kernels is not None and dense:
            weight = kernels.pack_matrix(self.weight)
        elif kernels is not None and self.groups > 1 == self.stride[0]:
            weight = kernels.pack_depthwise(self.weight)
        if weight is not None:
            bias = kernels.pack_channels(self.bias)
        return dict(packed_weight=weight, packed_bias=bias)

    @property
    def packed(self) -> tuple[Tensor, Tensor]:
        return self.packed_weight, self.packed_bias

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Convolve (batch, in, H, W), activate, add a map of the result's."""
        kernels = kernels_for(x, self)
        if kernels is not None and self.groups == 1:
            sizes = (self.kernel_size, self.stride, self.padding)
            return kernels.dense_conv2d(
                x, *self.packed, self.out_channels, *sizes, self.act, add
            )
        if kernels is not None:
            y = kernels.depthwise_conv2d(x, *self.packed, self.act)
        else:
            if kernels_for(x) is not None:
                # The layers behind this one read adjacent channels.
                x = x.contiguous(memory_format=torch.channels_last)
            y = super().forward(x)
            if self.act != 'none':
                y = getattr(F, self.act)(y, inplace=True)
        return y if add is None else add + y


class FusedConvBN(ConvBN):
    """ConvBN as one convolution, with the shortcut of a residual one."""

    @torch.no_grad()
    def __init__(self, part: ConvBN, act: str = 'none'):
        nn.Module.__init__(self)
        weight = part.conv.weight
        exact = copy.deepcopy(part).double().eval()
        conv = fuse_conv_bn_eval(exact.conv, exact.bn)
        if isinstance(part, ResidualDWConv):
            conv.weight[:, 0, 1, 1] += 1
        conv.to(weight.dtype).requires_grad_(weight.requires_grad)
        self.conv, self.bn = FusedConv2d(conv, act), None

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        return self.conv(x, add)


class FusedFFN(Deployed, ResidualFFN):
    """Feed-forward part with the depthwise filter that stands before it."""

    activated = {'pw1': 'act'}

    def forward(
        self, x: Tensor, dw: FusedConvBN, add: Tensor | None = None
    ) -> Tensor:
        """Filter a map by ``dw``, run the part, add a map of its shape."""
        first, second, filter = self.pw1.conv, self.pw2.conv, dw.conv
        kernels = kernels_for(x, first, second, filter)
        if kernels is None:
            y = super().forward(dw(x))
            return y if add is None else add + y
        sides = (*first.packed, *second.packed, first.out_channels, first.act)
        return kernels.feed_forward(x, *sides, *filter.packed, add)


class FusedSS2D(Deployed, SS2D):
    """SS2D that computes its A once."""

    activated = {'dwconv': 'act'}

    def pack(self, kernels: ModuleType | None) -> dict[str, Tensor | None]:
        weight = self.x_proj_weight.flatten(0, 1)[..., None, None]
        weight = kernels and kernels.pack_matrix(weight)
        return dict(A=super().decay(), packed_weight=weight)

    def decay(self) -> Tensor:
        if torch.is_grad_enabled() and self.A_log.requires_grad:
            return super().decay()
        if not torch.compiler.is_compiling():
            self.keep_fresh()
        return self.A

    def project(self, x: Tensor) -> Tensor:
        kernels = kernels_for(x, self)
        if kernels is None:
            return super().project(x)
        rows = self.directions * self.x_proj_weight.shape[1]
        return kernels.dense_conv2d(x, self.packed_weight, None, rows)

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """Map (batch, dim, H, W) to the same shape, then add."""
        x, z = self.in_proj(x).chunk(2, dim=1)
        x = self.dwconv(x)
        y = self.scan(x, self.project(x), self.decay())
        return self.out_proj(self.gate(y, z), add)


class FusedWavelet(Deployed, nn.Conv2d):
    """Filter of a wavelet level, its scale folded in, and the transforms."""

    def pack(self, kernels: ModuleType | None) -> dict[str, Tensor | None]:
        pack = kernels and kernels.pack_wavelet
        return dict(packed_weight=pack and pack(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        kernels = kernels_for(x, self)
        if kernels is None:
            return ops.wavelet_conv2d(x, [self.weight], self.backend)
        return kernels.wavelet_conv2d(x, self.packed_weight)


class FusedGlobalPath(Deployed, GlobalPath):
    """Global path with its scales folded in."""

    def __init__(self, path: GlobalPath):
        super().__init__(path)
        out = self.ss2d.out_proj.conv
        out.weight.mul_(path.base_scale.view(-1, 1, 1, 1))
        out.bias.mul_(path.base_scale.flatten())
        for conv, scale in zip(
            path.wavelet_convs, path.wavelet_scales, strict=True
        ):
            conv.weight.mul_(scale.view(-1, 1, 1, 1))
        self.base_scale = self.wavelet_scales = None
        self.wavelet_convs = nn.ModuleList(
            FusedWavelet(conv) for conv in path.wavelet_convs
        )

    def forward(self, x: Tensor) -> Tensor:
        convs, wavelet = self.wavelet_convs, None
        if len(convs) == 1:
            wavelet = convs[0](x)
        elif len(convs):
            weights = [conv.weight for conv in convs]
            wavelet = ops.wavelet_conv2d(x, weights, self.ss2d.backend)
        return self.ss2d(x, wavelet)


class FusedLocalPart(Deployed, LocalPart):
    """Local part as one operator of the extension, or two convolutions."""

    activated = {'dw': 'act'}

    def forward(self, x: Tensor) -> Tensor:
        conv, scale = self.dw.conv, self.scale.conv
        kernels = kernels_for(x, conv, scale)
        if kernels is None:
            return super().forward(x)
        factors, shifts = scale.packed
        return kernels.depthwise_conv2d(
            x, *conv.packed, conv.act, factors.flatten(), shifts
        )


class FusedMixer(Deployed, Mixer):
    """Mixer with its shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        wide, local, rest = x.split(self.widths, dim=1)
        y = (self.global_path(wide), self.local_path(local), rest)
        return self.proj(self.act(torch.cat(y, dim=1)), x)


class FusedBlock(Deployed, MobileMambaBlock):
    """Block with its filters in the feed-forward parts."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixer(self.ffn0(x, self.dw0))
        return self.ffn1(y, self.dw1, x)


class FusedDownsample(Deployed, Downsample):
    """Downsampling with its filters in the feed-forward parts."""

    activated = {'expand': 'act', 'dwconv': 'act'}

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(self.ffn0(x, self.dw0))
        x = self.project(self.se(self.dwconv(x)))
        return self.ffn1(x, self.dw1)


class FusedStem(Deployed, Stem):
    """Stem with the ReLUs in its convolutions."""

    activated = {f'{i}': f'act{i}' for i in range(3)}


_DEPLOYED = {
    ConvBN: FusedConvBN,
    Downsample: FusedDownsample,
    GlobalPath: FusedGlobalPath,
    LocalPart: FusedLocalPart,
    Mixer: FusedMixer,
    MobileMambaBlock: FusedBlock,
    ResidualDWConv: FusedConvBN,
    ResidualFFN: FusedFFN,
    SS2D: FusedSS2D,
    Stem: FusedStem,
}

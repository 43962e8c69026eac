"""Networks of timm that are built for one size, made to follow the picture's.

EfficientFormer V2 adds to its attention a bias per offset between two places
of a map, from a table as large as the map that it was built for.
"""

from torch import Tensor, nn


def follow_sizes(network: nn.Module) -> None:
    """Let attention with a table of offsets take maps of any size.

    Offsets beyond the table get the bias of its border, as clipped relative
    positions do (arXiv:1803.02155); at the size that the network was built
    for nothing changes. Parameters and their names stay as they are.

    Args:
        network (nn.Module): Network whose attention runs on maps (batch,
            channels, height, width); modules of other kinds are left alone.
    """
    for module in network.modules():
        if hasattr(module, 'attention_bias_idxs') and hasattr(
            module, '_compute_attention_bias_idxs'
        ):
            module.register_forward_pre_hook(_Fit(module.resolution))


class _Fit:
    """Fit a module to its input before it runs.

    Args:
        table (tuple[int, int]): Rows and columns of its table of offsets.
    """

    def __init__(self, table: tuple[int, int]):
        self.table = table

    def __call__(self, module: nn.Module, args: tuple[Tensor]) -> None:
        x = args[0]
        size = tuple(x.shape[2:])
        stride = 1
        if getattr(module, 'stride_conv', None) is not None:
            stride = module.stride_conv.conv.stride[0]
            # By factor, an odd side would come back one longer.
            module.upsample = nn.Upsample(size=size, mode='bilinear')
        module.resolution = tuple(-(-side // stride) for side in size)
        module.N = module.resolution[0] * module.resolution[1]
        if hasattr(module, 'resolution2'):
            module.resolution2 = tuple(
                -(-side // 2) for side in module.resolution
            )
            module.N2 = module.resolution2[0] * module.resolution2[1]
        # Marked on the tensor: it may be exchanged, the module moved.
        made_for = (module.resolution, x.device)
        if getattr(module.attention_bias_idxs, 'made_for', None) == made_for:
            return
        rows, columns = self.table
        offsets = module._compute_attention_bias_idxs(device=x.device)
        down = offsets.div(module.resolution[1], rounding_mode='floor')
        along = offsets % module.resolution[1]
        places = down.clamp(max=rows - 1) * columns
        places = places + along.clamp(max=columns - 1)
        places.made_for = made_for
        module.attention_bias_idxs = places
        module.attention_bias_cache = {}

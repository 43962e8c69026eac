"""A backbone and the neck that adapts to it, as one backbone."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.registry import MODELS as HOST_MODELS
from torch import Tensor

from ...registry import MODELS
from ..part_configs import as_value_error, check_init_cfg, check_part


@MODELS.register_module()
class PyramidBackbone(BaseModule):
    """Give a backbone a neck that takes channels and strides from it.

    The host libraries build backbone and neck apart, so that another backbone
    asks for another neck in the config. Here the neck is built for the maps
    that the backbone has, and a detector sees the same pyramid whatever the
    backbone: use it with ``neck=None``.

    Args:
        backbone (dict): Config of a backbone that knows its ``out_channels``
            and ``out_strides``, as ``mmmobilemamba.TIMMBackbone`` and
            ``mmmobilemamba.MobileMamba`` do.
        neck (dict): Config of a neck without ``in_channels``, which come from
            the backbone; so does ``in_strides`` where the neck has
            ``out_strides``, as ``mmmobilemamba.DeconvFPN`` may.
        init_cfg (dict or list[dict], optional): Initialisation. Pretrained
            files go to the backbone's own. Defaults to None.

    Raises:
        TypeError: An argument is no config, or the backbone does not know
            its channels and strides.
        ValueError: The neck has ``in_channels`` already, or one of the two
            cannot be built.

    Example:
        >>> import torch
        >>> from mmmobilemamba.models import PyramidBackbone
        >>> model = PyramidBackbone(
        ...     dict(
        ...         type='mmmobilemamba.TIMMBackbone',
        ...         model_name='efficientvit_m2',
        ...     ),
        ...     dict(
        ...         type='mmmobilemamba.DeconvFPN',
        ...         out_channels=256,
        ...         out_strides=(8, 16, 32, 64, 128),
        ...     ),
        ... ).eval()
        >>> with torch.no_grad():
        ...     outs = model(torch.rand(1, 3, 128, 128))
        >>> [out.shape[3] for out in outs]
        [16, 8, 4, 2, 1]
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        init_cfg: dict | list[dict] | None = None,
    ):
        check_init_cfg(init_cfg, loads_strictly=False)
        check_part('backbone', backbone)
        check_part('neck', neck)
        super().__init__(init_cfg=init_cfg)
        given = {'in_channels', 'in_strides'} & neck.keys()
        if given:
            raise ValueError(
                f'The neck of a PyramidBackbone takes {", ".join(given)} from '
                'the backbone; leave it out.'
            )
        with as_value_error(f'backbone={backbone} cannot be built'):
            self.backbone = HOST_MODELS.build(backbone)
        for name in ('out_channels', 'out_strides'):
            if not isinstance(getattr(self.backbone, name, None), Sequence):
                raise TypeError(
                    f'backbone={backbone} has no list of {name}, which '
                    'PyramidBackbone needs; mmmobilemamba.TIMMBackbone and '
                    'mmmobilemamba.MobileMamba have it.'
                )
        found = dict(in_channels=self.backbone.out_channels)
        if neck.get('out_strides') is not None:
            found['in_strides'] = self.backbone.out_strides
        with as_value_error(f'neck={neck} cannot be built'):
            self.neck = HOST_MODELS.build(dict(neck, **found))

    @property
    def out_channels(self) -> list[int]:
        """Channels of the returned maps."""
        return [self.neck.out_channels] * self.neck.num_outs

    @property
    def out_strides(self) -> list[int] | None:
        """Strides of the returned maps in pixels, where the neck has them."""
        strides = getattr(self.neck, 'out_strides', None)
        return strides and list(strides)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the pyramid.

        Args:
            x (Tensor): Pictures (batch, channels, H, W).

        Returns:
            tuple[Tensor]: Maps (batch, out_channels, H / stride, W / stride),
            finest first.
        """
        return self.neck(self.backbone(x))

    def switch_to_deploy(self) -> None:
        """Fuse the backbone; a second call does nothing."""
        self.backbone.switch_to_deploy()

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Return the depth of a parameter for layer-wise learning rates.

        Args:
            param_name (str): Name of the parameter.
            prefix (str): Prefix of this module's names. Defaults to ''.

        Returns:
            tuple[int, int]: The backbone's layer and number of layers; the
            neck counts as what follows the backbone.
        """
        return self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')

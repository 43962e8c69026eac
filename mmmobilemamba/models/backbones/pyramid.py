"""A backbone and the neck that adapts to it, as one backbone."""

from mmengine.model import BaseModule
from mmengine.registry import MODELS as HOST_MODELS
from torch import Tensor

from ...registry import MODELS


@MODELS.register_module()
class PyramidBackbone(BaseModule):
    """Give a backbone a neck that takes channels and strides from it.

    The neck is built for the maps that the backbone has, and a detector sees
    the same pyramid whatever the backbone: use it with ``neck=None``.

    Args:
        backbone (dict): Config of a backbone that knows its ``out_channels``
            and ``out_strides``, as ``mmmobilemamba.TIMMBackbone`` and
            ``mmmobilemamba.MobileMamba`` do.
        neck (dict): Config of a neck without ``in_channels``, which come from
            the backbone; so does ``in_strides`` where the neck has
            ``out_strides``, as ``mmmobilemamba.DeconvFPN`` may.
        init_cfg (dict or list[dict], optional): Initialisation. Pretrained
            files go to the backbone's own. Defaults to None.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        self.backbone = HOST_MODELS.build(backbone)
        found = dict(in_channels=self.backbone.out_channels)
        if neck.get('out_strides') is not None:
            found['in_strides'] = self.backbone.out_strides
        self.neck = HOST_MODELS.build(dict(neck, **found))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of the neck for images (batch, channels, H, W)."""
        return self.neck(self.backbone(x))

    def switch_to_deploy(self) -> None:
        """Fuse the backbone; a second call does nothing."""
        self.backbone.switch_to_deploy()

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Return the backbone's; the neck counts as what follows it."""
        return self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')

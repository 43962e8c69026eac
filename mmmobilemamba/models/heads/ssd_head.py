"""SSD head that predicts as well as it trains."""

from mmdet.models.dense_heads import SSDHead as _SSDHead

from ...registry import MODELS


@MODELS.register_module()
class SSDHead(_SSDHead):
    """Detect with SSD in evaluation too.

    Prediction in MMDetection 3.3 asks every dense head for its ``loss_cls``,
    to see whether that loss has an activation of its own. SSD computes its
    loss without such a module, so validation and testing of the original
    class end in an AttributeError. Arguments are those of
    :class:`mmdet.models.dense_heads.SSDHead`.
    """

    loss_cls = None

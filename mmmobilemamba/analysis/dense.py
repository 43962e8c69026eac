"""Running detectors and segmentors on pictures that no data set made."""

from torch import Tensor, nn

from .detectors import data_samples, is_detector


def predict_dense(module: nn.Module, x: Tensor) -> list:
    """Predict pictures, from the network to boxes, masks or labels.

    Args:
        module (nn.Module): Detector of MMDetection or segmentor of
            MMSegmentation.
        x (Tensor): Normalised pictures (batch, 3, H, W), taken as neither
            scaled nor padded.

    Returns:
        list: The libraries' data samples.
    """
    samples = data_samples(x.shape) if is_detector(module) else None
    return module(x, samples, mode='predict')


def run_on_maps(module: nn.Module, x: Tensor) -> tuple:
    """Run the layers of a dense network that see whole maps.

    Args:
        module (nn.Module): Detector or segmentor.
        x (Tensor): Normalised pictures (batch, 3, H, W).

    Returns:
        tuple: Feature maps and the maps of the dense heads. Heads on regions
        are not run, because which regions they see depends on values.
    """
    maps = module.extract_feat(x)
    names = ('rpn_head', 'bbox_head', 'decode_head')
    heads = (getattr(module, name, None) for name in names)
    return (maps, *(head(maps) for head in heads if head is not None))


def backbone_and_neck(module: nn.Module) -> list[nn.Module]:
    """Return the parts of a dense network that do not branch on values.

    Args:
        module (nn.Module): Detector or segmentor.

    Returns:
        list[nn.Module]: Backbone and, where there is one, neck.
    """
    parts = (getattr(module, name, None) for name in ('backbone', 'neck'))
    return [part for part in parts if part is not None]

"""Turning a model of a host library into a network that can be traced."""

from copy import deepcopy

from torch import nn

from .modules import make_exportable
from .networks import (
    Backbone,
    Classifier,
    Network,
    Preprocess,
    Segmentor,
    preprocess_settings,
)
from .options import MIN_SIDE, ExportOptions


def describe(model: nn.Module, kind: str, options: ExportOptions) -> dict:
    """Collect what a runtime has to know of a network.

    Args:
        model (nn.Module): Model of a host library.
        kind (str): Its kind.
        options (ExportOptions): How it is exported; ``size`` is given.

    Returns:
        dict: What JSON can hold.
    """
    classes = getattr(model, 'dataset_meta', {}).get('classes')
    metadata = dict(
        kind=kind,
        size=None if options.dynamic_size else list(options.size),
        batch=None if options.dynamic_batch else options.batch,
        min_size=MIN_SIDE,
        preprocess=options.preprocess,
        normalize=preprocess_settings(model),
        classes=list(classes) if classes else None,
        traced_size=list(options.size),
        form=options.form,
        precision='float32',
    )
    if kind == 'detector' and model.with_mask:
        metadata['mask_threshold'] = model.roi_head.test_cfg.mask_thr_binary
    if kind == 'segmentor':
        metadata['align_corners'] = model.align_corners
        metadata['threshold'] = getattr(model.decode_head, 'threshold', None)
    return metadata


def build_network(
    model: nn.Module, kind: str, options: ExportOptions, metadata: dict
) -> Network:
    """Return a copy of a model in the form in which it is traced.

    Args:
        model (nn.Module): Model of a host library in evaluation mode.
        kind (str): ``'backbone'``, ``'classifier'``, ``'segmentor'`` or
            ``'detector'``.
        options (ExportOptions): How it is exported.
        metadata (dict): Of :func:`describe`.

    Returns:
        Network: The network, with no gradients.

    Raises:
        ValueError: The model is of a kind that cannot be exported.
    """
    fixed_size = not options.dynamic_size
    model = deepcopy(model)
    backbone = getattr(model, 'backbone', None)
    if kind == 'backbone' and backbone is None:
        raise ValueError(
            f'{type(model).__name__} has no backbone to export by itself.'
        )
    if options.deploy and hasattr(backbone, 'switch_to_deploy'):
        backbone.switch_to_deploy()
    make_exportable(model, fixed_size, form=options.form, chunk=options.chunk)
    normalize = metadata['normalize']
    preprocess: nn.Module = nn.Identity()
    if options.preprocess:
        preprocess = Preprocess(normalize)
    common = (model, preprocess, fixed_size)
    if kind == 'backbone':
        network: Network = Backbone(*common)
    elif kind == 'classifier':
        network = Classifier(*common)
    elif kind == 'segmentor':
        network = Segmentor(*common, argmax=options.argmax)
    else:
        # Imports MMDetection, which the others do without.
        from .detectors import wrap_detector

        network = wrap_detector(
            *common,
            divisor=normalize['pad_divisor'],
            fixed_count=options.fixed_count,
        )
    return network.eval().requires_grad_(False)

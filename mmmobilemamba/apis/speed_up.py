"""Forms of a trained model that predict faster."""

import argparse

from mmengine.model import is_model_wrapper
from torch import nn

from ..ops import hold_weights_constant


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the switches that :func:`speed_up` takes.

    Args:
        parser (argparse.ArgumentParser): Parser of a tool that predicts.
    """
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='fuse the backbone before predicting',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile the backbone with its weights as constants; the first '
        'image of a size takes a minute',
    )


def speed_up(
    model: nn.Module, deploy: bool = False, compile: bool = False
) -> None:
    """Fuse and compile the backbone of a model whose weights are loaded.

    Args:
        model (nn.Module): Model of any of the three libraries, in eval mode.
        deploy (bool): Fuse norms into convolutions. Defaults to False.
        compile (bool): Let torch.compile make code for the backbone, with
            the weights as constants, for every input size anew. Defaults to
            False.

    Raises:
        ValueError: The model has no backbone that can be fused or compiled.
    """
    if is_model_wrapper(model):
        model = model.module
    backbone = getattr(model, 'backbone', None)
    kind = type(backbone).__name__
    if deploy:
        if not hasattr(backbone, 'switch_to_deploy'):
            raise ValueError(f'--deploy: {kind} has no deployed form.')
        backbone.switch_to_deploy()
    if compile:
        if not isinstance(backbone, nn.Module):
            raise ValueError('--compile: the model has no backbone in torch.')
        hold_weights_constant(backbone)
        # Code for any size is slower, and takes minutes to make.
        backbone.compile(dynamic=False, options=dict(freezing=True))

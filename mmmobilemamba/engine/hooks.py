"""Training in channels_last memory format."""

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmobilemamba.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the weights and the batches in channels_last memory format.

    Convolutions of tensor cores and CPUs work on it without a conversion.
    Results and checkpoints are the same: mmcv's operators, which read any
    memory as if it were contiguous, get contiguous weights and inputs.
    """

    # Before EMAHook copies the model.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Convert the weights, and every batch from now on."""
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        model.to(memory_format=torch.channels_last)
        for module in model.modules():
            if type(module).__module__.startswith('mmcv.ops.'):
                module.to(memory_format=torch.contiguous_format)
                module.register_forward_pre_hook(_to_contiguous)
        model.data_preprocessor.register_forward_hook(_to_channels_last)


def _to_channels_last(module: nn.Module, args: tuple, output: dict) -> dict:
    inputs = output['inputs']
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        output['inputs'] = inputs.contiguous(memory_format=torch.channels_last)
    return output


def _to_contiguous(module: nn.Module, args: tuple) -> tuple:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in args)

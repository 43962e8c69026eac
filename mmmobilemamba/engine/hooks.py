"""Hooks for long trainings."""

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmobilemamba.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the weights and the batches in channels_last memory format.

    Convolutions of GPUs with tensor cores and of CPUs work on that layout
    without a conversion of their own. Results and checkpoints are the same:
    mmcv's operators, RoIAlign among them, which read any memory as if it were
    contiguous, get contiguous weights and inputs.
    """

    # Before EMAHook copies the model.
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._done = False

    def before_run(self, runner: Runner) -> None:
        """Convert the weights, and every batch from now on."""
        if self._done:
            return
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        model.to(memory_format=torch.channels_last)
        for module in model.modules():
            if type(module).__module__.startswith('mmcv.ops.'):
                module.to(memory_format=torch.contiguous_format)
                module.register_forward_pre_hook(_to_contiguous)
        model.data_preprocessor.register_forward_hook(_to_channels_last)
        self._done = True


def _to_channels_last(module: nn.Module, args: tuple, output: dict) -> dict:
    inputs = output['inputs']
    if isinstance(inputs, Tensor) and inputs.dim() == 4:
        output['inputs'] = inputs.contiguous(memory_format=torch.channels_last)
    return output


def _to_contiguous(module: nn.Module, args: tuple) -> tuple:
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in args)


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log the images that all processes together train on per second.

    The log and the visualizer get it as ``images_per_s``: images of one
    iteration over the mean time of the last ones, data loading included.

    Args:
        window (int): Iterations to average over. Defaults to 50.
    """

    # After IterTimerHook, which comes first at this priority, and before
    # LoggerHook.
    priority = 'NORMAL'

    def __init__(self, window: int = 50) -> None:
        self.window = window

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Update the throughput."""
        hub = runner.message_hub
        seconds = hub.get_scalar('train/time').mean(self.window)
        images = len(data_batch['inputs']) * get_world_size()
        hub.update_scalar('train/images_per_s', images / seconds)

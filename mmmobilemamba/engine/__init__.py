"""Engine parts that register in the ``mmmobilemamba`` scope.

:mod:`mmmobilemamba.engine.safe_checkpoint` is not imported here: importing it
changes what ``torch.load`` accepts, and that has to be asked for.
"""

from .distributed import CPUDistributedDataParallel
from .hooks import ChannelsLastHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .optim_wrapper import CPUAmpOptimWrapper
from .resumable_checkpoint_hook import ResumableCheckpointHook

__all__ = [
    'CPUAmpOptimWrapper',
    'CPUDistributedDataParallel',
    'ChannelsLastHook',
    'LayerDecayOptimWrapperConstructor',
    'ResumableCheckpointHook',
]

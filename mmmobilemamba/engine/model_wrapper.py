"""Data parallelism without CUDA."""

from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from torch import nn

from mmmobilemamba.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """Train one model in several CPU processes, joined by gloo.

    Synchronised BatchNorm has no CPU form, and torch refuses to wrap it
    there; each process normalises over its own batch instead.

    Args:
        module (nn.Module): Model to wrap.
        broadcast_buffers (bool): Copy the buffers of the first process before
            each step. Defaults to False, as in mmengine's Runner.
        device_ids (list, optional): Ignored; mmengine passes the number of
            the process, which means a GPU.
        **kwargs: Further arguments of
            :class:`mmengine.model.MMDistributedDataParallel`.
    """

    def __init__(
        self,
        module: nn.Module,
        broadcast_buffers: bool = False,
        device_ids: list | None = None,
        **kwargs,
    ) -> None:
        super().__init__(
            revert_sync_batchnorm(module),
            broadcast_buffers=broadcast_buffers,
            **kwargs,
        )

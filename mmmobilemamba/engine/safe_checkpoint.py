"""Let stock tools of the host libraries read mmengine's checkpoints safely.

Importing it widens what ``torch.load(weights_only=True)`` reads, for the whole
process, by :mod:`mmmobilemamba.checkpoints.safe_loading`::

    custom_imports = dict(imports=['mmmobilemamba.engine.safe_checkpoint'])
"""

from mmmobilemamba.checkpoints.safe_loading import allow_mmengine_checkpoints

allow_mmengine_checkpoints()

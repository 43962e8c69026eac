"""Layer-wise learning rates in all three libraries."""

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmmobilemamba.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Give deeper layers of the backbone higher learning rates.

    Every rule of mmengine's default constructor holds; the learning rate that
    it settles for a parameter of the backbone is multiplied by
    ``layer_decay_rate`` once for each layer above the parameter's, as
    ``get_layer_depth`` counts them. Necks and heads keep their rate.

    Args:
        optim_wrapper_cfg (dict): Config of the optimizer wrapper.
        paramwise_cfg (dict): Rules of the default constructor, and
            **layer_decay_rate** (float), in (0, 1].

    Raises:
        ValueError: ``layer_decay_rate`` is missing or outside its range, or
            the model has no backbone with ``get_layer_depth``.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.decay_rate = self.paramwise_cfg.get('layer_decay_rate')
        if self.decay_rate is None or not 0 < self.decay_rate <= 1:
            raise ValueError(
                'paramwise_cfg.layer_decay_rate must be in (0, 1], got '
                f'{self.decay_rate!r}.'
            )

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the parameters of a module and of what it holds."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        backbone = getattr(module, 'backbone', None)
        names = {p: name for name, p in module.named_parameters()}
        for group in params:
            name = names[group['params'][0]]
            try:
                depth, layers = backbone.get_layer_depth(name, 'backbone.')
            except (AttributeError, NotImplementedError) as error:
                raise ValueError(
                    f'{type(module).__name__} has no backbone whose '
                    'get_layer_depth says what layer_decay_rate goes by.'
                ) from error
            scale = self.decay_rate ** (layers - 1 - depth)
            group['lr'] = group.get('lr', self.base_lr) * scale

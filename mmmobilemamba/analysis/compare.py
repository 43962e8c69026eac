"""Backbones side by side in one detector, segmentor or classifier."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from mmengine.config import Config, ConfigDict

from ..apis.input_size import input_channels
from ..apis.training import training_length
from ..datasets.data_paths import type_name
from .complexity import Complexity
from .figures import markdown_rows
from .networks import (
    NetworkSpec,
    backbone_config,
    build_backbone,
    measure_maps,
)
from .run_logs import RunLog


@dataclass
class Compared:
    """What the trainings with one backbone came to."""

    label: str
    cfg: Config
    cost: Complexity
    seconds: list[float] = field(default_factory=list)  # of each training
    runs: list[RunLog] = field(default_factory=list)

    def final_values(self, metric: str) -> list[float]:
        """Return what was measured after the last step of each training, or
        raise a ValueError where nothing was."""
        found = []
        for run in self.runs:
            steps, values = run.curve(metric)
            if not steps or steps[-1] != training_length(self.cfg)[1]:
                raise ValueError(
                    f'{run.name} has no {metric!r} of its last step; delete '
                    'its last checkpoint to repeat that.'
                )
            found.append(values[-1])
        return found


def make_table(results: Iterable[Compared], metric: str) -> str:
    """Return mean, deviation and cost of each backbone, as Markdown."""
    rows = []
    for result in results:
        values = result.final_values(metric)
        spread = statistics.stdev(values) if len(values) > 1 else 0
        rows.append(
            [
                result.label,
                f'{statistics.fmean(values):.4g} ± {spread:.2g}',
                ', '.join(f'{value:.4g}' for value in values),
                f'{result.cost.params / 1e6:.2f}',
                f'{result.cost.macs / 1e9:.3f}',
                round(statistics.fmean(result.seconds)),
            ]
        )
    header = ['backbone', metric, 'by seed', 'parameters M', 'MACs G']
    return markdown_rows([*header, 's of a training'], rows)


def swap_backbone(cfg: Config, spec: NetworkSpec) -> None:
    """Put a backbone into the model of a config, and fit the rest to it.

    In a classifier the head takes the channels of the last map. In detectors
    and segmentors everything behind the neck sees the same strides: a
    ``DeconvFPN``, beside the backbone or within a ``PyramidBackbone``, makes
    the levels that the backbone lacks; other necks need the old strides.

    Raises:
        ValueError: The backbone or its file does not fit.
    """
    scope, model = cfg.get('default_scope'), cfg.model
    old, neck = model.get('backbone') or {}, model.get('neck')
    if type_name(old) == 'PyramidBackbone':
        old, neck = old.backbone, old.neck
    new = backbone_config(spec)
    # Still norms are for pretrained weights, and no network learns with the
    # initial ones.
    new['norm_eval'] = bool(spec.checkpoint and old.get('norm_eval'))
    had = build_backbone(dict(old, init_cfg=None), scope)
    if (wide := input_channels(had)) != 3:  # grey, or of more bands
        new['in_channels'] = wide
    channels, strides = measure_maps(build_backbone(new, scope))
    if scope == 'mmpretrain':
        model.head.in_channels = channels[-1]
    elif not neck or 'out_channels' not in neck:
        raise ValueError(
            'The model needs a neck, or a mmmobilemamba.PyramidBackbone, '
            'for another backbone to go before it.'
        )
    else:
        _, wanted = measure_maps(had)
        if type_name(neck) == 'DeconvFPN':
            first = -neck.pop('num_finer', 0)
            last = len(wanted) + neck.pop('num_coarser', 0)
            if neck.get('out_strides') is None:
                levels = range(first, last)
                neck.out_strides = [int(wanted[0] * 2**i) for i in levels]
            neck.in_strides = strides
        elif not set(wanted) <= set(strides):
            raise ValueError(
                f'{spec.text} has strides {strides}, {neck.type} wants '
                f'{wanted}; DeconvFPN with out_strides makes what is missing.'
            )
        elif wanted != strides:
            levels = new.get('out_indices', range(len(strides)))
            kept = [strides.index(stride) for stride in wanted]
            new['out_indices'] = tuple(levels[index] for index in kept)
            channels = [channels[index] for index in kept]
        neck.in_channels = channels
    model.backbone, model.neck = ConfigDict(new), neck
    model.pop('pretrained', None)

"""Backbones side by side in one detector, segmentor or classifier."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from ..apis.inference import build_model
from ..apis.training import FinishedTraining, training_length
from ..checkpoints.checkpoint import read_state_dict
from .complexity import count_complexity
from .figures import markdown_rows
from .networks import NetworkSpec, backbone_config
from .run_logs import RunLog, default_keys, read_run

# A power of two with room for a stride of 64.
_PROBE = 128


@dataclass
class Compared:
    """What the trainings with one backbone came to."""

    label: str
    cfg: Config
    size: tuple[int, int]  # height and width that MACs are counted at
    metric: str | None = None  # None: what the library is judged by
    values: dict[int, float] = field(default_factory=dict)  # by seed
    seconds: list[float] = field(default_factory=list)  # of each training
    runs: list[RunLog] = field(default_factory=list)

    def __post_init__(self):
        model = build_model(self.cfg)
        self.cost = count_complexity(model, self.size)
        own = model.backbone.parameters()
        self.backbone_params = sum(p.numel() for p in own)
        self.slug = re.sub(r'[^\w.-]+', '-', self.label).strip('-')

    def add(self, seed: int, cfg: Config, done: FinishedTraining) -> None:
        """Take in a finished training of a seed, which is the config's."""
        run = read_run(cfg.work_dir, f'{self.label}, seed {seed}')
        keys = [key for key in default_keys([run]) if key != 'loss']
        self.metric = self.metric or (keys or [''])[0]
        steps, values = run.curve(self.metric)
        if not steps or steps[-1] != training_length(cfg)[1]:
            raise ValueError(
                f'{cfg.work_dir} has no {self.metric!r} of its last step; '
                f'delete {done.checkpoint} to repeat that.'
            )
        self.values[seed] = values[-1]
        self.seconds.append(done.seconds)
        self.runs.append(run)


def make_table(results: Sequence[Compared]) -> str:
    """Return mean, deviation and cost of each backbone, as Markdown."""
    rows = []
    for result in results:
        values = list(result.values.values())
        spread = statistics.stdev(values) if len(values) > 1 else 0
        rows.append(
            [
                result.label,
                f'{statistics.fmean(values):.4g} ± {spread:.2g}',
                ', '.join(f'{value:.4g}' for value in values),
                f'{result.cost.params / 1e6:.2f}',
                f'{result.backbone_params / 1e6:.2f}',
                f'{result.cost.macs / 1e9:.3f}',
                round(statistics.fmean(result.seconds)),
            ]
        )
    header = ['backbone', results[0].metric, 'by seed', 'parameters M']
    header += ['of the backbone', 'MACs G', 's of a training']
    return markdown_rows(header, rows)


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
    if _is(old, 'PyramidBackbone'):
        old, neck = old.backbone, old.neck
    new = backbone_config(spec)
    # Still norms are for pretrained weights, and no network learns with the
    # initial ones.
    new['norm_eval'] = bool(spec.checkpoint and old.get('norm_eval'))
    channels, strides = _measure(new, scope)
    if scope == 'mmpretrain':
        model.head.in_channels = channels[-1]
    elif not neck or 'out_channels' not in neck:
        raise ValueError(
            'The model needs a neck, or a mmmobilemamba.PyramidBackbone, '
            'for another backbone to go before it.'
        )
    elif _is(neck, 'DeconvFPN'):
        if neck.get('out_strides') is None:
            had = _measure(dict(old, init_cfg=None), scope)[1]
            first = -neck.get('num_finer', 0)
            last = len(had) + neck.get('num_coarser', 0)
            neck.out_strides = [int(had[0] * 2**i) for i in range(first, last)]
        for name in ('num_finer', 'num_coarser'):
            neck.pop(name, None)
        neck.in_channels, neck.in_strides = channels, strides
    else:
        wanted = _measure(dict(old, init_cfg=None), scope)[1]
        if not set(wanted) <= set(strides):
            raise ValueError(
                f'{spec.text} has strides {strides}, {neck.type} wants '
                f'{wanted}; DeconvFPN with out_strides makes what is missing.'
            )
        kept = [strides.index(stride) for stride in wanted]
        neck.in_channels = [channels[index] for index in kept]
        if len(kept) < len(strides):
            levels = new.get('out_indices', range(len(strides)))
            new['out_indices'] = tuple(levels[index] for index in kept)
    model.backbone, model.neck = ConfigDict(new), neck
    model.pop('pretrained', None)


def _is(settings: dict, name: str) -> bool:
    kind = settings.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2] == name


def _measure(backbone: dict, scope: str) -> tuple[list[int], list[int]]:
    """Return channels and strides of a backbone; raise where a file of its
    weights does not fit, of which mmengine would say nothing."""
    with DefaultScope.overwrite_default_scope(scope):
        module = revert_sync_batchnorm(MODELS.build(dict(backbone)))
    module.eval()  # by itself: train() of some of the host's returns None
    ours = hasattr(module, 'out_channels') and hasattr(module, 'out_strides')
    init_cfg = backbone.get('init_cfg')
    if init_cfg and ours:
        module.init_weights()  # ours check by themselves
    elif init_cfg:
        tensors = read_state_dict(init_cfg['checkpoint'])
        try:
            left = module.load_state_dict(tensors, strict=False).missing_keys
        except RuntimeError as error:  # other shapes
            left = [str(error)]
        if left:
            raise ValueError(
                f'{init_cfg["checkpoint"]} does not fit {backbone["type"]}: '
                f'{", ".join(left[:5])}.'
            )
    if ours:
        return list(module.out_channels), list(module.out_strides)
    with torch.no_grad():
        maps = module(torch.zeros(1, 3, _PROBE, _PROBE))
    return [m.shape[1] for m in maps], [_PROBE // m.shape[3] for m in maps]

"""Backbones side by side in one detector, segmentor or classifier."""

import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from ..apis.inference import build_model
from ..apis.options import build_runner, set_loader_defaults
from ..apis.training import FinishedTraining, training_length
from ..checkpoints.checkpoint import fit_report, read_state_dict
from .complexity import count_complexity
from .figures import figure_file, markdown_rows
from .networks import NetworkSpec, backbone_config
from .run_logs import RunLog, default_keys, read_run

# A power of two with room for a stride of 64.
_PROBE = 128


@dataclass
class Compared:
    """What the trainings with one backbone came to.

    Args:
        label (str): Name in the table.
        params (int): Parameters of the whole model.
        backbone_params (int): Those of the backbone alone.
        macs (int): Multiply-accumulates of the whole model for one image.
        values (dict[int, float]): Metric of the finished trainings by seed.
        seconds (dict[int, float]): Time of each training.
        peak_bytes (int): Memory of a training at its peak.
        speeds (dict[str, float]): Images per second, ``'plain'`` and
            ``'fused'``.
        runs (list[RunLog]): Logs of the trainings.
    """

    label: str
    params: int
    backbone_params: int
    macs: int
    values: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    peak_bytes: int = 0
    speeds: dict[str, float] = field(default_factory=dict)
    runs: list[RunLog] = field(default_factory=list)

    @classmethod
    def count(cls, label: str, cfg: Config, size: tuple[int, int]):
        """Count the model of a config at a size, before any training."""
        model = build_model(cfg)
        cost = count_complexity(model, size)
        own = sum(p.numel() for p in model.backbone.parameters())
        return cls(label, cost.params, own, cost.macs)

    def add(self, seed: int, cfg: Config, done: FinishedTraining, key: str):
        """Take in a finished training.

        Args:
            seed (int): Its seed.
            cfg (Config): Its config.
            done (FinishedTraining): What it left.
            key (str): Name of the metric.
        """
        run = read_run(cfg.work_dir, self.label)
        steps, values = run.curve(key)
        if not steps or steps[-1] != training_length(cfg)[1]:
            # It was stopped between the last checkpoint and its evaluation.
            values = [evaluate(cfg, str(done.checkpoint))[key]]
        self.values[seed] = float(values[-1])
        self.seconds[seed] = round(done.seconds, 1)
        on_gpu = max(r.get('memory', 0) for r in run.train.values())
        peak = int(on_gpu * 2**20) or done.peak_bytes
        self.peak_bytes = max(self.peak_bytes, peak)
        self.runs.append(run)

    def as_dict(self) -> dict:
        """Return everything but the logs, for JSON."""
        facts = {k: v for k, v in vars(self).items() if k != 'runs'}
        return dict(facts, mean=self.mean, standard_deviation=self.spread)

    @property
    def mean(self) -> float:
        """Mean of the metric over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds; 0 for one seed."""
        values = self.values.values()
        return statistics.stdev(values) if len(values) > 1 else 0.0


def evaluate(cfg: Config, checkpoint: str) -> dict[str, float]:
    """Evaluate a checkpoint on the validation data of its config."""
    cfg = Config(cfg.to_dict())
    set_loader_defaults(cfg)
    cfg.load_from = checkpoint
    cfg.work_dir = os.path.join(cfg.work_dir, 'evaluation')
    return build_runner(cfg).val()


def leading_metric(cfg: Config) -> str:
    """Return the name of what a finished training is first judged by."""
    found = default_keys([read_run(cfg.work_dir)])
    keys = [key for key in found if key != 'loss']
    if not keys:
        raise ValueError(f'{cfg.work_dir} has no evaluation to compare by.')
    return keys[0]


def make_table(
    results: Sequence[Compared], metric: str, settings: Mapping
) -> str:
    """Lay results out as a table of Markdown, the settings below.

    Args:
        results (Sequence[Compared]): A row each.
        metric (str): Name of the metric.
        settings (Mapping): What was the same for all.

    Returns:
        str: The table.
    """
    header = ['backbone', metric, 'seeds', 'params M (backbone)', 'MACs G']
    header += ['images/s', 'fused', 'peak MiB', 's/training']
    rows = []
    for result in results:
        params, own = result.params / 1e6, result.backbone_params / 1e6
        rows.append(
            [
                result.label,
                f'{result.mean:.4g} ± {result.spread:.2g}',
                len(result.values),
                f'{params:.2f} ({own:.2f})',
                f'{result.macs / 1e9:.3f}',
                f'{result.speeds.get("plain", 0):.3g}',
                f'{result.speeds.get("fused", 0):.3g}',
                round(result.peak_bytes / 2**20),
                round(statistics.fmean(result.seconds.values())),
            ]
        )
    said = ', '.join(f'{key} {value}' for key, value in settings.items())
    return f'{markdown_rows(header, rows)}\n\n{said}\n'


def draw_comparison(
    results: Sequence[Compared], metric: str, path: str | os.PathLike
) -> None:
    """Draw the metric against MACs, against speed, and over the trainings.

    Args:
        results (Sequence[Compared]): A colour each.
        metric (str): Name of the metric.
        path (str or PathLike): Figure to write.
    """
    with figure_file(path, (12.6, 3.6)) as figure:
        panels = figure.subplots(1, 3)
        for number, result in enumerate(results):
            style = dict(color=f'C{number}', label=result.label)
            places = (result.macs / 1e9, result.speeds.get('fused'))
            for panel, x in zip(panels, places):
                if x:
                    panel.errorbar(
                        x,
                        result.mean,
                        yerr=result.spread,
                        fmt='o',
                        capsize=4,
                        **style,
                    )
            for run in result.runs:
                panels[2].plot(*run.curve(metric), alpha=0.6, **style)
        labels = ('MACs of the whole model in G', 'images/s, fused')
        for panel, label in zip(panels, (*labels, 'epoch or iteration')):
            panel.set(xlabel=label, ylabel=metric)
            panel.grid(alpha=0.3)
        panels[0].legend(fontsize='small')


def slug(label: str) -> str:
    """Return a label as a part of file names."""
    return re.sub(r'[^\w.-]+', '-', label).strip('-')


def swap_backbone(cfg: Config, spec: NetworkSpec) -> None:
    """Put a backbone into the model of a config, and fit the rest to it.

    In a classifier the head takes the channels of the last map. In detectors
    and segmentors everything behind the neck stays as it is and sees the same
    strides: a ``DeconvFPN``, beside the backbone or within a
    ``PyramidBackbone``, makes the levels that the backbone lacks; other necks
    need a backbone with the strides of the old one.

    Args:
        cfg (Config): Config, changed in place.
        spec (NetworkSpec): The new backbone.

    Raises:
        ValueError: The model has nothing to fit, the backbone not the
            strides that the neck wants, or its file does not fit.
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
    elif not isinstance(neck, dict) or 'type' not in neck:
        raise ValueError(
            'The model needs a neck with in_channels, or a '
            'mmmobilemamba.PyramidBackbone, for another backbone to go '
            f'before it; got neck={neck!r}.'
        )
    elif _is(neck, 'DeconvFPN'):
        if neck.get('out_strides') is None:
            finer, coarser = (
                neck.pop(name, 0) for name in ('num_finer', 'num_coarser')
            )
            had = _measure(dict(old, init_cfg=None), scope)[1]
            neck.out_strides = [
                had[0] * 2**i for i in range(-finer, len(had) + coarser)
            ]
        neck.in_channels, neck.in_strides = channels, strides
    else:
        wanted = _measure(dict(old, init_cfg=None), scope)[1]
        if not set(wanted) <= set(strides):
            raise ValueError(
                f'{spec.text} has strides {strides} and the {neck.type} '
                f'wants {wanted}; mmmobilemamba.DeconvFPN with out_strides '
                'makes what is missing.'
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
    kind = getattr(kind, '__name__', str(kind))  # or a class
    return kind.rpartition('.')[2] == name


def _measure(backbone: dict, scope: str) -> tuple[list[int], list[int]]:
    """Return channels and strides of a backbone; raise where a file of its
    weights does not fit, of which mmengine would say nothing."""
    settings = dict(backbone)
    init_cfg = settings.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope(scope):
        module = revert_sync_batchnorm(MODELS.build(settings))
    module.eval()  # by itself: train() of some of the host's returns None
    ours = hasattr(module, 'out_channels') and hasattr(module, 'out_strides')
    path = (init_cfg or {}).get('checkpoint')
    if path and ours:
        module.init_cfg = init_cfg
        module.init_weights()  # ours check by themselves
    elif path and os.path.exists(path):
        known = {name.partition('.')[0] for name in module.state_dict()}
        tensors = {
            name: tensor
            for name, tensor in read_state_dict(path).items()
            if name.partition('.')[0] in known  # no classifier
        }
        if problems := fit_report(module, tensors, path):
            raise ValueError(problems)
    if ours:
        return list(module.out_channels), list(module.out_strides)
    with torch.no_grad():
        maps = module(torch.zeros(1, 3, _PROBE, _PROBE))
    return [m.shape[1] for m in maps], [_PROBE // m.shape[3] for m in maps]

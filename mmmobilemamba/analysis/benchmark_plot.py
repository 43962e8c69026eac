"""A plot of published accuracy against measured speed."""

import os

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ..checkpoints.atomic import atomic_write

_OURS = 'MobileMamba'
_MARKERS = 'osD^vP<>phX8'
_COLOURS = (
    'tab:blue tab:orange tab:green tab:purple tab:brown tab:pink tab:gray '
    'tab:olive tab:cyan navy teal goldenrod'
).split()
# Where a label may stand beside its point, in points, the best first.
_PLACES = (
    (6, 4, 'left'),
    (6, -10, 'left'),
    (-6, 4, 'right'),
    (-6, -10, 'right'),
    (0, 8, 'center'),
    (0, -14, 'center'),
    (12, 14, 'left'),
    (-12, 14, 'right'),
    (12, -20, 'left'),
    (-12, -20, 'right'),
    (0, 18, 'center'),
    (0, -24, 'center'),
    (24, 24, 'left'),
    (-24, -30, 'right'),
)


def plot_speed(report: dict, path: str | os.PathLike) -> None:
    """Draw published accuracy against measured images per second.

    Args:
        report (dict): Report of a benchmark; its largest batch size is drawn
            and networks of known accuracy only.
        path (str or PathLike): Picture to write.
    """
    models = [model for model in report['models'] if model['published']]
    result = max(models[0]['results'], key=lambda item: item['batch'])
    index = models[0]['results'].index(result)
    families: dict[str, list] = {}
    colours: dict[str, str] = {}
    for model in models:
        entry = model['published']
        # Other forms of the same network are lines of their own.
        family = model['name'].replace(entry['name'], entry['family'])
        speed = model['results'][index]['images_per_second']
        name = entry['name'] + ('*' if entry['recipe'] else '')
        ours = family.startswith(_OURS)
        colour = _COLOURS[len(colours) % len(_COLOURS)]
        colours.setdefault(family, 'crimson' if ours else colour)
        point = (speed, entry['top1'], name, colours[family])
        families.setdefault(family, []).append(point)

    figure = Figure(figsize=(9, 6.5), layout='constrained')
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (family, points) in enumerate(families.items()):
        ours = family.startswith(_OURS)
        axes.plot(
            *zip(*[point[:2] for point in sorted(points)], strict=True),
            color=colours[family],
            marker='*' if ours else _MARKERS[number % len(_MARKERS)],
            markersize=14 if ours else 6,
            linewidth=2 if ours else 1,
            zorder=3 if ours else 2,
            label=family,
        )
    axes.set_xscale('log')
    axes.margins(x=0.12, y=0.08)
    axes.grid(alpha=0.3, which='both')
    axes.set_ylabel('ImageNet-1K top-1 in %, as published')
    axes.set_xlabel(f'images/s at batch {result["batch"]}, measured')
    axes.set_title(_title(report), fontsize=10)
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter(_few_ticks)
    axes.legend(fontsize=8, loc='lower left', ncols=2)
    if any(model['published']['recipe'] for model in models):
        axes.annotate(
            '* trained with a teacher',
            (0.99, 0.01),
            xycoords='axes fraction',
            ha='right',
            fontsize=8,
        )
    canvas.draw()
    _label(axes, [point for points in families.values() for point in points])
    with atomic_write(path) as draft:
        figure.savefig(draft, dpi=150)


def _title(report: dict) -> str:
    found, settings = report['environment'], report['settings']
    where = found.get('gpu') or f'{found["cpu"]}, {found["threads"]} threads'
    what = 'training step' if settings['train'] else 'prediction'
    dtypes = sorted({model['form']['dtype'] for model in report['models']})
    return (
        f'Published accuracy against measured speed\n{what}, '
        f'{" and ".join(dtypes)}, {where}, torch {found["torch"]}'
    )


def _few_ticks(value: float, position: int) -> str:
    """Name 2 and 5 between the powers of ten."""
    first = f'{value:e}'[0]
    return f'{value:g}' if first in '235' else ''


def _label(axes: Axes, points: list[tuple]) -> None:
    """Write each point's name where it covers no other name or point."""
    figure = axes.figure
    renderer = figure.canvas.get_renderer()
    legend = axes.get_legend().get_window_extent(renderer)
    taken = [legend]
    marks = axes.transData.transform([point[:2] for point in points])
    for x, y, name, colour in points:
        best = None
        for dx, dy, side in _PLACES:
            text = axes.annotate(
                name,
                (x, y),
                (dx, dy),
                textcoords='offset points',
                ha=side,
                fontsize=7.5,
                color=colour,
                weight='bold' if name.startswith(_OURS) else 'normal',
                # readable where a line runs beneath
                path_effects=[withStroke(linewidth=2, foreground='white')],
            )
            box = text.get_window_extent(renderer)
            clashes = sum(box.overlaps(other) for other in taken)
            clashes += sum(box.contains(*mark) for mark in marks)
            clashes += 0 if _inside(axes.get_window_extent(), box) else 3
            if best is None or clashes < best[0]:
                if best is not None:
                    best[1].remove()
                best = (clashes, text, box)
            else:
                text.remove()
            if not clashes:
                break
        taken.append(best[2])


def _inside(frame, box) -> bool:
    return (
        frame.x0 <= box.x0
        and box.x1 <= frame.x1
        and frame.y0 <= box.y0
        and box.y1 <= frame.y1
    )

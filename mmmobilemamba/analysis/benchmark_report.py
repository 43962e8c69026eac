"""Tables, files and the plot of a benchmark, with published accuracies."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from ..apis.environment import cpu_name
from ..checkpoints.atomic import atomic_write
from ..ops import find_extension
from .figures import figure_file, markdown_rows
from .timing import speedup

# Network, name in its paper, side of the test images in pixels, ImageNet-1K
# top-1 in per cent for training on ImageNet-1K alone, and the paper on arXiv;
# a star marks a training with a teacher.
_PUBLISHED = """
mobilemamba:t2               MobileMamba-T2      192 73.6 2411.15941
mobilemamba:t4               MobileMamba-T4      192 76.1 2411.15941
mobilemamba:s6               MobileMamba-S6      224 78.0 2411.15941
mobilemamba:b1               MobileMamba-B1      256 79.9 2411.15941
mobilemamba:b2               MobileMamba-B2      384 81.6 2411.15941
mobilemamba:b4               MobileMamba-B4      512 82.5 2411.15941
timm:efficientvit_m2         EfficientViT-M2     224 70.8 2305.07027
timm:efficientvit_m4         EfficientViT-M4     224 74.3 2305.07027
timm:efficientvit_m5         EfficientViT-M5     224 77.1 2305.07027
timm:shvit_s1                SHViT-S1            224 72.8 2401.16456
timm:shvit_s2                SHViT-S2            224 75.2 2401.16456
timm:shvit_s3                SHViT-S3            224 77.4 2401.16456
timm:shvit_s4                SHViT-S4            256 79.4 2401.16456
timm:mobilenetv2_100         MobileNetV2         224 72.0 1801.04381
timm:mobilenetv4_conv_small  MobileNetV4-Conv-S  224 73.8 2404.10518
timm:mobilenetv4_conv_medium MobileNetV4-Conv-M  256 79.9 2404.10518
timm:repvit_m0_9             RepViT-M0.9*        224 78.7 2307.09283
timm:repvit_m1_0             RepViT-M1.0*        224 80.0 2307.09283
timm:repvit_m1_1             RepViT-M1.1*        224 80.7 2307.09283
timm:starnet_s1              StarNet-S1          224 73.5 2403.19967
timm:starnet_s2              StarNet-S2          224 74.8 2403.19967
timm:starnet_s3              StarNet-S3          224 77.3 2403.19967
timm:starnet_s4              StarNet-S4          224 78.4 2403.19967
timm:fasternet_t0            FasterNet-T0        224 71.9 2303.03667
timm:fasternet_t1            FasterNet-T1        224 76.2 2303.03667
timm:fasternet_t2            FasterNet-T2        224 78.9 2303.03667
timm:mobilevitv2_050         MobileViTv2-0.5     256 70.2 2206.02680
timm:mobilevitv2_075         MobileViTv2-0.75    256 75.6 2206.02680
timm:mobilevitv2_100         MobileViTv2-1.0     256 78.1 2206.02680
timm:edgenext_xx_small       EdgeNeXt-XXS        256 71.2 2206.10589
timm:edgenext_x_small        EdgeNeXt-XS         256 75.0 2206.10589
timm:edgenext_small          EdgeNeXt-S          256 79.4 2206.10589
timm:fastvit_t8              FastViT-T8          256 75.6 2303.14189
timm:fastvit_t12             FastViT-T12         256 79.1 2303.14189
timm:mambaout_femto          MambaOut-Femto      224 78.9 2405.07992
"""
PUBLISHED = {
    key: dict(name=name, size=int(size), top1=float(top1), source=source)
    for key, name, size, top1, source in map(
        str.split, _PUBLISHED.strip().splitlines()
    )
}
# The paper's efficiency table with the peers of its figures; B2 is B1's
# network at a size between the two that are here.
PAPER_MODELS = tuple(
    f'{key}@{entry["size"]}'
    for key, entry in PUBLISHED.items()
    if key != 'mobilemamba:b2'
)
# Ours beside the peer of a like accuracy.
PAPER_PAIRS = (
    ('mobilemamba:t2@192', 'timm:efficientvit_m4@224'),
    ('mobilemamba:s6@224', 'timm:efficientvit_m5@224'),
    ('mobilemamba:b1@256', 'timm:shvit_s4@256'),
)


def environment(device: str) -> dict[str, str | int]:
    """Return versions, scan and processor or GPU of a device."""
    where = f'{cpu_name()}, {torch.get_num_threads()} threads'
    if torch.device(device).type == 'cuda':
        where = torch.cuda.get_device_name(device)
    names = ('mmmobilemamba', 'torch', 'timm', 'onnxruntime', 'openvino')
    used = {n: sys.modules[n].__version__ for n in names if n in sys.modules}
    devices = ' '.join(find_extension().devices) or 'none'
    return dict(used, where=where, scan_extension=devices)


def markdown(report: dict) -> str:
    """Lay out ``environment``, ``form``, ``train``, ``models`` and ``pairs``
    of names: speeds, comparisons, and how it was measured."""
    models = report['models']
    batches = [result['batch'] for result in models[0]['results']]
    header = ['model', 'px', 'params', 'MACs', 'top-1, published']
    for batch in batches:
        header.append(f'batch {batch}, {"ms" if batch == 1 else "img/s"}')
    rows = []
    for model in models:
        counts = [model[name] or 0 for name in ('params', 'macs')]
        row = [
            _name(model),
            'x'.join(map(str, dict.fromkeys(model['size']))),
            *(f'{count / 1e6:.1f} M' if count else '-' for count in counts),
            (_published_of(model) or {}).get('top1', '-'),
            *map(_speed, model['results']),
        ]
        rows.append(row)
    parts = [markdown_rows(header, rows)]
    if report['pairs']:
        header = [f'batch {batch}, times its speed' for batch in batches]
        by_text = {model['text']: model for model in models}
        rows = []
        for one, other in (map(by_text.get, p) for p in report['pairs']):
            results = zip(one['results'], other['results'], strict=True)
            ratios = (speedup(a['seconds'], b['seconds']) for a, b in results)
            texts = [f'{ratio:.2f}' for ratio in ratios]
            rows.append([_name(one), _name(other), *texts])
        parts.append(markdown_rows(['model', 'beside', *header], rows))
    rounds = len(models[0]['results'][0]['seconds'])
    parts.append(
        f'{_conditions(report)}; medians of {rounds} interleaved rounds, '
        'first to third quartile in brackets. Weights are random.'
    )
    return '\n\n'.join(parts) + '\n'


def write_report(report: dict, folder: str | os.PathLike) -> None:
    """Write ``benchmark.json``, ``benchmark.md`` and, where accuracies are
    published, ``benchmark.png``; the report holds the ``command`` as well."""
    file = Path(folder, 'benchmark.json')
    with atomic_write(file) as draft:
        draft.write_text(json.dumps(report, indent=1) + '\n')
    with atomic_write(file.with_suffix('.md')) as draft:
        draft.write_text(f'    {report["command"]}\n\n{markdown(report)}')
    if any(_published_of(model) for model in report['models']):
        _plot(report, file.with_suffix('.png'))


def _plot(report: dict, path: Path) -> None:
    """Draw published accuracy against images per second at the last batch."""
    families: dict[str, list] = {}
    for model in report['models']:
        if entry := _published_of(model):
            # Other forms of a network are lines of their own.
            name = entry['name']
            family = _name(model).replace(name, name.partition('-')[0])
            result = model['results'][-1]
            speed = result['batch'] / np.median(result['seconds'])
            point = (speed, entry['top1'], name)
            families.setdefault(family, []).append(point)
    batch = report['models'][0]['results'][-1]['batch']
    with figure_file(path, (9, 6.5)) as figure:
        axes = figure.subplots()
        for number, (family, points) in enumerate(families.items()):
            ours = family.startswith('MobileMamba')
            style = dict(color=f'C{number % 10}', marker='osD^v'[number % 5])
            if ours:
                style = dict(color='crimson', marker='*', markersize=14)
            places = [point[:2] for point in sorted(points)]
            axes.plot(*zip(*places, strict=True), label=family, **style)
            for *place, name in points:
                text = dict(xytext=(5, 4), textcoords='offset points')
                color = style['color']
                axes.annotate(name, place, fontsize=7, color=color, **text)
        axes.set(
            xscale='log',
            xlabel=f'images/s at batch {batch}, measured',
            ylabel='ImageNet-1K top-1 in %, as published; * with a teacher',
        )
        axes.set_title(_conditions(report), fontsize=10)
        axes.grid(alpha=0.3, which='both')
        axes.legend(fontsize=8, loc='lower left', ncols=2)


def _name(model: dict) -> str:
    """Return a name for tables: what differs from the others is kept."""
    published = _published_of(model)
    name = published['name'] if published else model['label']
    options = ', '.join(f'{k}={v}' for k, v in model['options'].items())
    return f'{name} ({options})' if options else name


def _published_of(model: dict) -> dict | None:
    """Return what is published of a network at this size."""
    entry = PUBLISHED.get(f'{model["kind"]}:{model["network"]}')
    return entry if entry and model['size'] == [entry['size']] * 2 else None


def _conditions(report: dict) -> str:
    found, form = report['environment'], report['form']
    words = [form['dtype'], 'fused' if form['deploy'] else 'as trained']
    names = ('channels_last', 'compile', 'cuda_graph')
    words += [name for name in names if form[name]]
    what = 'training step' if report['train'] else 'prediction'
    return (
        f'{found["where"]}, torch {found["torch"]}; {what}, {", ".join(words)}'
    )


def _speed(result: dict) -> str:
    """Return milliseconds of a single image, or images per second."""
    values = 1e3 * np.asarray(result['seconds'])
    if result['batch'] > 1:
        values = result['batch'] / values * 1e3
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    digits = max(0, 3 - len(str(int(middle))))
    low, middle, high = (f'{x:.{digits}f}' for x in (low, middle, high))
    return f'{middle} ({low}-{high})'

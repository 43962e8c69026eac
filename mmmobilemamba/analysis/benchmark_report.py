"""Tables, files and the plot of a benchmark, with published accuracies."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from ..apis.environment import cpu_name
from ..checkpoints.atomic import atomic_write
from ..ops import find_extension
from .figures import figure_file, markdown_rows

# Network, name in its paper, side of the test images in pixels, ImageNet-1K
# top-1 in per cent for training on ImageNet-1K alone, and the paper on arXiv;
# a star marks a training with a teacher.
_PUBLISHED = """\
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
    key: dict(name=name, size=int(size), top1=float(top1))
    for key, name, size, top1, _ in map(str.split, _PUBLISHED.splitlines())
}
PAPER_MODELS = [f'{key}@{entry["size"]}' for key, entry in PUBLISHED.items()]


def environment(device: str) -> dict:
    """Return versions, scan and processor or GPU of a device."""
    where = f'{cpu_name()}, {torch.get_num_threads()} threads'
    if torch.device(device).type == 'cuda':
        where = torch.cuda.get_device_name(device)
    names = ('mmmobilemamba', 'torch', 'timm', 'onnxruntime', 'openvino')
    used = {n: sys.modules[n].__version__ for n in names if n in sys.modules}
    return dict(used, where=where, scan_extension=find_extension().devices)


def markdown(report: dict) -> str:
    """Lay out ``environment``, ``form``, ``models`` and ``baseline``, a name
    or None: speeds, their ratios to it round by round, and conditions."""
    models = report['models']
    base = [m for m in models if m['text'] == report['baseline']]
    header = ['model', 'px', 'params', 'MACs', 'top-1, published']
    for result in models[0]['results']:
        batch = result['batch']
        header.append(f'batch {batch}, {"ms" if batch == 1 else "img/s"}')
        header += [f'times {_name(model)}' for model in base]
    rows = []
    for model in models:
        row = [_name(model), 'x'.join(map(str, dict.fromkeys(model['size'])))]
        for count in (model['params'], model['macs']):
            row.append(f'{count / 1e6:.1f} M' if count else '-')
        row.append((_published_of(model) or {}).get('top1', '-'))
        for i, result in enumerate(model['results']):
            row.append(_speed(result))
            for other in (m['results'][i]['seconds'] for m in base):
                ratios = np.divide(other, result['seconds'])
                row.append(f'{np.median(ratios):.2f}')
        rows.append(row)
    rounds = len(models[0]['results'][0]['seconds'])
    return (
        f'{markdown_rows(header, rows)}\n\n'
        f'{_conditions(report)}; medians of {rounds} interleaved rounds, '
        'first to third quartile in brackets. Weights are random.\n'
    )


def write_report(report: dict, folder: Path) -> None:
    """Write ``benchmark.json``, ``benchmark.md`` and, where accuracies are
    published, ``benchmark.png``; the report holds the ``command`` as well."""
    with atomic_write(folder / 'benchmark.json') as draft:
        draft.write_text(json.dumps(report, indent=1) + '\n')
    with atomic_write(folder / 'benchmark.md') as draft:
        draft.write_text(f'    {report["command"]}\n\n{markdown(report)}')
    if any(map(_published_of, report['models'])):
        _plot(report, folder / 'benchmark.png')


def _plot(report: dict, path: Path) -> None:
    """Draw published accuracy against images per second at the last batch."""
    with figure_file(path, (9, 6.5)) as figure:
        axes = figure.subplots()
        for model in filter(_published_of, report['models']):
            result = model['results'][-1]
            speed = result['batch'] / np.median(result['seconds'])
            place, name = (speed, _published_of(model)['top1']), _name(model)
            color = 'crimson' if model['kind'] == 'mobilemamba' else 'C0'
            axes.plot(*place, 'o', color=color)
            offset = dict(xytext=(5, 4), textcoords='offset points')
            axes.annotate(name, place, fontsize=7, color=color, **offset)
        axes.set(
            title=_conditions(report),
            xscale='log',
            xlabel=f'images/s at batch {result["batch"]}, measured',
            ylabel='ImageNet-1K top-1 in %, as published; * with a teacher',
        )
        axes.grid(alpha=0.3, which='both')


def _name(model: dict) -> str:
    """Return a name for tables: what differs from the others is kept."""
    name = (_published_of(model) or model).get('name', model['label'])
    options = dict(model['options'], weights=model['checkpoint'])
    text = ', '.join(f'{k}={v}' for k, v in options.items() if v)
    return f'{name} ({text})' if text else name


def _published_of(model: dict) -> dict | None:
    """Return what is published of a network at this size."""
    entry = PUBLISHED.get(f'{model["kind"]}:{model["network"]}')
    return entry if entry and {*model['size']} == {entry['size']} else None


def _conditions(report: dict) -> str:
    found, form = report['environment'], report['form']
    words = ['training step' if form['train'] else 'prediction', form['dtype']]
    words.append('fused' if form['deploy'] else 'as trained')
    words += ['channels_last'] * form['channels_last']
    return f'{found["where"]}, torch {found["torch"]}; {", ".join(words)}'


def _speed(result: dict) -> str:
    """Return milliseconds of a single image, or images per second."""
    values = 1e3 * np.asarray(result['seconds'])
    if result['batch'] > 1:
        values = result['batch'] / values * 1e3
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    digits = max(0, 3 - len(str(int(middle))))
    low, middle, high = (f'{x:.{digits}f}' for x in (low, middle, high))
    return f'{middle} ({low}-{high})'

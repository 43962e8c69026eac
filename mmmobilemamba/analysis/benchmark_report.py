"""Tables and files of a benchmark."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..apis.environment import cpu_name
from ..checkpoints.atomic import atomic_write
from ..ops import find_extension
from ..version import __version__

JSON_NAME, TABLE_NAME, PLOT_NAME = (
    f'benchmark.{suffix}' for suffix in ('json', 'md', 'png')
)


def environment(
    device: str, threads: int | None = None
) -> dict[str, str | int]:
    """Say what a benchmark was measured with.

    Args:
        device (str): Where the networks ran.
        threads (int, optional): Threads that were set for it. Defaults to
            None, which is those of torch.

    Returns:
        dict[str, str | int]: Versions, processor, threads and, for a GPU,
        its name.
    """
    found = {
        'mmmobilemamba': __version__,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'platform': platform.platform(),
        'cpu': cpu_name(),
        'cpu_instructions': torch.backends.cpu.get_cpu_capability(),
        'cpu_cores': os.cpu_count(),
        'threads': threads or torch.get_num_threads(),
        'scan_extension': ' '.join(find_extension().devices) or 'none',
    }
    for name in ('timm', 'onnxruntime', 'openvino'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    if torch.device(device).type == 'cuda':
        found['gpu'] = torch.cuda.get_device_name(device)
        found['cuda'] = torch.version.cuda
        found['cudnn_tf32'] = torch.backends.cudnn.allow_tf32
    return found


def markdown(report: dict) -> str:
    """Lay a benchmark out as markdown.

    Args:
        report (dict): ``environment``, ``settings``, ``models`` and
            ``pairs``.

    Returns:
        str: A table of speeds, one of comparisons where there are pairs, and
        what they were measured with.
    """
    parts = [_speed_table(report['models'])]
    if report['pairs']:
        parts.append(_pair_table(report['pairs'], report['models']))
    parts.append(_conditions(report))
    return '\n\n'.join(parts) + '\n'


def check_out_dir(out_dir: str | os.PathLike, overwrite: bool) -> Path:
    """Check that a folder can take the files of a benchmark.

    Args:
        out_dir (str or PathLike): Folder.
        overwrite (bool): Whether files of an earlier run may go.

    Returns:
        Path: The folder, which is made where it is missing.

    Raises:
        FileExistsError: An earlier run left its files there.
        OSError: It is no folder that can be written to.
    """
    folder = Path(out_dir)
    there = [
        folder / name
        for name in (JSON_NAME, TABLE_NAME, PLOT_NAME)
        if (folder / name).exists()
    ]
    if there and not overwrite:
        raise FileExistsError(
            f'{there[0]} exists; choose another folder or pass --overwrite.'
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f'{folder} is not writable.')
    return folder


def write_report(report: dict, out_dir: Path) -> list[Path]:
    """Write a benchmark's json, table and plot.

    Args:
        report (dict): ``command``, ``environment``, ``settings``, ``models``
            and ``pairs``.
        out_dir (Path): Folder.

    Returns:
        list[Path]: Files written; no plot where no accuracy is published.
    """
    from .benchmark_plot import plot_speed

    files = [out_dir / JSON_NAME, out_dir / TABLE_NAME]
    with atomic_write(files[0]) as draft:
        draft.write_text(json.dumps(report, indent=1) + '\n')
    with atomic_write(files[1]) as draft:
        draft.write_text(f'    {report["command"]}\n\n{markdown(report)}')
    picture = out_dir / PLOT_NAME
    if any(model['published'] for model in report['models']):
        plot_speed(report, picture)
        files.append(picture)
    else:
        picture.unlink(missing_ok=True)  # one of an earlier run
    return files


def _speed_table(models: list[dict]) -> str:
    batches = [result['batch'] for result in models[0]['results']]
    with_memory = any(
        result['peak_memory']
        for model in models
        for result in model['results']
    )
    columns = ['px', 'params', 'MACs', 'top-1, published']
    for batch in batches:
        columns.append(f'batch {batch}, {"ms" if batch == 1 else "img/s"}')
        if with_memory:
            columns.append('MB')
    lines = [
        f'| model | {" | ".join(columns)} |',
        f'|---|{"---:|" * len(columns)}',
    ]
    for model in models:
        height, width = model['size']
        cells = [
            str(height) if height == width else f'{height}x{width}',
            _count(model['params']),
            _count(model['macs']),
            _accuracy(model['published']),
        ]
        for result in model['results']:
            cells.append(_speed(result))
            if with_memory:
                peak = result['peak_memory']
                cells.append('-' if peak is None else f'{peak / 2**20:.0f}')
        lines.append(f'| {model["name"]} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _pair_table(pairs: list[dict], models: list[dict]) -> str:
    names = {model['label']: model['name'] for model in models}
    batches = list(dict.fromkeys(pair['batch'] for pair in pairs))
    rows: dict[tuple, dict] = {}
    macs = {model['label']: model['macs'] for model in models}
    for pair in pairs:
        label, other = pair['model'], pair['baseline']
        row = rows.setdefault((label, other), {})
        row[pair['batch']] = f'{pair["speed"]:.2f}'
        if macs[label] and macs[other] and macs[label] != macs[other]:
            per_mac = pair['speed'] * macs[label] / macs[other]
            row[pair['batch']] += f' ({per_mac:.2f} per MAC)'
    heads = ' | '.join(f'batch {batch}, times its speed' for batch in batches)
    lines = [
        f'| model | beside | {heads} |',
        f'|---|---|{"---:|" * len(batches)}',
    ]
    for (model, baseline), speeds in rows.items():
        cells = ' | '.join(speeds[batch] for batch in batches)
        lines.append(f'| {names[model]} | {names[baseline]} | {cells} |')
    return '\n'.join(lines)


def _conditions(report: dict) -> str:
    found, settings = report['environment'], report['settings']
    rounds = report['models'][0]['results'][0]['rounds']
    where = found.get('gpu') or f'{found["cpu"]}, {found["threads"]} threads'
    what = 'forward and backward' if settings['train'] else 'forward'
    forms = {_form_text(model['form']) for model in report['models']}
    form = forms.pop() if len(forms) == 1 else 'forms as named'
    return (
        f'{where}, torch {found["torch"]}; {what}, {form}; medians of '
        f'{rounds} interleaved rounds, first to third quartile in brackets. '
        'Weights are random.'
    )


def _form_text(form: dict) -> str:
    if form['runtime']:
        return f'float32, exported, {form["runtime"]}'
    parts = [form['dtype'], 'fused' if form['deploy'] else 'as trained']
    parts.append('channels_last' if form['channels_last'] else 'contiguous')
    parts.append(
        f'torch.compile {form["compile"]}' if form['compile'] else 'eager'
    )
    return ', '.join(parts)


def _count(value: int | None) -> str:
    if value is None:
        return '-'
    if value >= 1e10:
        return f'{value / 1e9:.0f} G'
    return f'{value / 1e6:.0f} M' if value >= 1e8 else f'{value / 1e6:.1f} M'


def _accuracy(published: dict | None) -> str:
    if published is None:
        return '-'
    recipe = f', {published["recipe"]}' if published['recipe'] else ''
    return f'{published["top1"]:.1f}{recipe}'


def _speed(result: dict) -> str:
    """Return milliseconds of a single picture, or pictures per second."""
    if result['batch'] == 1:
        values = [1e3 * result[key] for key in ('median', 'low', 'high')]
    else:
        values = [
            result['batch'] / result[key] for key in ('median', 'high', 'low')
        ]
    digits = max(0, 3 - len(str(int(values[0]))))
    middle, low, high = (f'{value:.{digits}f}' for value in values)
    return f'{middle} ({low}-{high})'

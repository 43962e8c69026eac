"""Variants of MobileMamba and the check of a user's own."""

from collections.abc import Callable, Sequence

from ..arguments import MAX_CHANNELS, check_rate, is_int, is_real
from ..layers import SCAN_DIRECTIONS, split_channels

_DEFAULTS = dict(
    global_ratios=(0.8, 0.7, 0.6),
    local_ratios=(0.2, 0.2, 0.3),
    kernel_sizes=(7, 5, 3),
    ssm_ratio=2,
    d_state=1,
    scan_directions=2,
    wavelet_levels=1,
    local_splits=1,
    drop_path_rate=0.0,
)

_B = dict(channels=(200, 376, 448), depths=(2, 3, 2), drop_path_rate=0.03)

ARCH_SETTINGS = {
    't2': dict(channels=(144, 272, 368), depths=(1, 2, 2)),
    't4': dict(channels=(176, 368, 448), depths=(1, 2, 2)),
    's6': dict(channels=(192, 384, 448), depths=(1, 2, 2)),
    # The published B models are one network at 256, 384 and 512 px.
    'b1': _B,
    'b2': _B,
    'b4': _B,
}

NUM_STAGES = 3
MAX_STATE = 256
MAX_DEPTH = 1000
MAX_KERNEL = 127
MAX_SSM_RATIO = 16


def _fail(key: str, value, allowed: str) -> None:
    raise ValueError(f'arch[{key!r}] must be {allowed}, got {value!r}.')


def _per_stage(
    arch: dict, key: str, test: Callable[[object], bool], allowed: str
) -> tuple:
    value = arch[key]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(
            f'arch[{key!r}] must be a list of {NUM_STAGES}, one per stage, '
            f'got {value!r}.'
        )
    if len(value) != NUM_STAGES or not all(test(item) for item in value):
        _fail(key, value, f'{NUM_STAGES} values, each {allowed}')
    return tuple(value)


def resolve_arch(arch: str | dict) -> dict:
    """Return the full settings of a variant, checked.

    Args:
        arch (str or dict): Name of a published variant, or the settings that
            :class:`MobileMamba` documents.

    Returns:
        dict: All settings, defaults filled in.

    Raises:
        ValueError: Unknown name or key, or a value outside its range.
        TypeError: ``arch`` is neither a string nor a dict, or a setting per
            stage is no list.
    """
    if isinstance(arch, str):
        name = arch.lower()
        if name not in ARCH_SETTINGS:
            raise ValueError(
                f'arch={arch!r} is unknown; choose one of '
                f'{", ".join(ARCH_SETTINGS)}, or give a dict.'
            )
        return {**_DEFAULTS, **ARCH_SETTINGS[name]}
    if not isinstance(arch, dict):
        raise TypeError(f'arch must be a name or a dict, got {arch!r}.')
    known = ('channels', 'depths', *_DEFAULTS)
    unknown = sorted(str(key) for key in arch if key not in known)
    if unknown:
        raise ValueError(
            f'arch has unknown keys {unknown}; allowed: {", ".join(known)}.'
        )
    for key in ('channels', 'depths'):
        if key not in arch:
            raise ValueError(
                f'arch lacks {key!r}; a dict needs channels and depths.'
            )
    arch = {**_DEFAULTS, **arch}
    arch['channels'] = _per_stage(
        arch,
        'channels',
        lambda v: is_int(v) and 0 < v <= MAX_CHANNELS,
        f'an int of 1 to {MAX_CHANNELS}',
    )
    if arch['channels'][0] % 8:
        # The stem runs through an eighth, a quarter and a half of it.
        _fail('channels', arch['channels'], 'a multiple of 8 in the first')
    arch['depths'] = _per_stage(
        arch,
        'depths',
        lambda v: is_int(v) and 0 < v <= MAX_DEPTH,
        f'an int of 1 to {MAX_DEPTH}',
    )
    arch['kernel_sizes'] = _per_stage(
        arch,
        'kernel_sizes',
        lambda v: is_int(v) and 0 < v <= MAX_KERNEL and v % 2,
        f'an odd int of 1 to {MAX_KERNEL}',
    )
    for key in ('global_ratios', 'local_ratios'):
        arch[key] = _per_stage(
            arch, key, lambda v: is_real(v) and 0 <= v <= 1, 'in [0, 1]'
        )
    ratio = arch['ssm_ratio']
    if not is_real(ratio) or not 0 < ratio <= MAX_SSM_RATIO:
        _fail('ssm_ratio', ratio, f'a number above 0, up to {MAX_SSM_RATIO}')
    check_rate("arch['drop_path_rate']", arch['drop_path_rate'])
    for key, allowed in (
        ('d_state', range(1, MAX_STATE + 1)),
        ('scan_directions', SCAN_DIRECTIONS),
        ('wavelet_levels', range(4)),
        ('local_splits', range(1, 4)),
    ):
        if not is_int(arch[key]) or arch[key] not in allowed:
            _fail(
                key,
                arch[key],
                f'an int of {allowed[0]} to {allowed[-1]}'
                if isinstance(allowed, range)
                else f'one of {allowed}',
            )
    _check_widths(arch)
    return arch


def _check_widths(arch: dict) -> None:
    """Refuse paths that a stage's channels cannot fill."""
    for width, wide, local in zip(
        arch['channels'],
        arch['global_ratios'],
        arch['local_ratios'],
        strict=True,
    ):
        global_width, local_width, _ = split_channels(width, wide, local)
        if global_width and int(arch['ssm_ratio'] * global_width) < 1:
            _fail('ssm_ratio', arch['ssm_ratio'], 'large enough for a scan')
        if 0 < local_width < arch['local_splits']:
            raise ValueError(
                f'arch["local_splits"]={arch["local_splits"]} cannot divide '
                f'the {local_width} local channels of a stage of {width}.'
            )

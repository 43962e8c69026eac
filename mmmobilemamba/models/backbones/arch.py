"""Variants of MobileMamba and the check of a user's own."""

from ..layers import split_channels

ARCH_DEFAULTS = dict(
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

# Setting: what is allowed, of each of the three stages where it is a list.
_PER_STAGE = {
    'channels': (lambda v: v > 0, 'positive'),
    'depths': (lambda v: v > 0, 'positive'),
    'kernel_sizes': (lambda v: v > 0 and v % 2 == 1, 'odd and positive'),
    'global_ratios': (lambda v: 0 <= v <= 1, 'in [0, 1]'),
    'local_ratios': (lambda v: 0 <= v <= 1, 'in [0, 1]'),
}
_SINGLE = {
    'ssm_ratio': (lambda v: v > 0, 'above 0'),
    'd_state': (lambda v: v in range(1, 257), '1 to 256'),
    'scan_directions': (lambda v: v in (1, 2, 4), '1, 2 or 4'),
    'wavelet_levels': (lambda v: v in range(4), '0 to 3'),
    'local_splits': (lambda v: v in range(1, 4), '1 to 3'),
    'drop_path_rate': (lambda v: 0 <= v < 1, 'in [0, 1)'),
}


def resolve_arch(arch: str | dict) -> dict:
    """Return the full settings of a variant, checked.

    Args:
        arch (str or dict): Name of a published variant, or the settings that
            :class:`MobileMamba` documents.

    Returns:
        dict: All settings, defaults filled in.

    Raises:
        ValueError: Unknown name or key, or a value outside its range.
    """
    if isinstance(arch, str):
        if arch.lower() not in ARCH_SETTINGS:
            raise ValueError(
                f'arch={arch!r} is unknown; choose one of '
                f'{", ".join(ARCH_SETTINGS)}, or give a dict.'
            )
        return {**ARCH_DEFAULTS, **ARCH_SETTINGS[arch.lower()]}
    known = {*_PER_STAGE, *_SINGLE}
    if not {'channels', 'depths'} <= set(arch) <= known:
        raise ValueError(
            f'arch has the keys {list(arch)}; channels and depths are '
            f'needed, and allowed are {", ".join(sorted(known))}.'
        )
    arch = {**ARCH_DEFAULTS, **arch}
    for key, (allows, allowed) in _PER_STAGE.items():
        if len(arch[key]) != 3 or not all(allows(v) for v in arch[key]):
            raise ValueError(
                f'arch[{key!r}] must be three values, one per stage, '
                f'{allowed}, got {arch[key]!r}.'
            )
    for key, (allows, allowed) in _SINGLE.items():
        if not allows(arch[key]):
            raise ValueError(
                f'arch[{key!r}] must be {allowed}, got {arch[key]!r}.'
            )
    if arch['channels'][0] % 8:
        # The stem runs through an eighth, a quarter and a half of it.
        raise ValueError(
            "arch['channels'] must begin with a multiple of 8, got "
            f'{arch["channels"]!r}.'
        )
    for width, *ratios in zip(
        arch['channels'],
        arch['global_ratios'],
        arch['local_ratios'],
        strict=True,
    ):
        local = split_channels(width, *ratios)[1]
        if 0 < local < arch['local_splits']:
            raise ValueError(
                f'arch["local_splits"]={arch["local_splits"]} cannot divide '
                f'the {local} local channels of a stage of {width}.'
            )
    return arch

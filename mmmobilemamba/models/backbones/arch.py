"""Variants of MobileMamba and the check of a user's own."""

# Tuples hold a value per stage.
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

_ALLOWED = {
    'channels': ('positive', lambda v: v > 0),
    'depths': ('positive', lambda v: v > 0),
    'kernel_sizes': ('odd and positive', lambda v: v > 0 and v % 2 == 1),
    'global_ratios': ('in [0, 1]', lambda v: 0 <= v <= 1),
    'local_ratios': ('in [0, 1]', lambda v: 0 <= v <= 1),
    'ssm_ratio': ('positive', lambda v: v > 0),
    'd_state': ('1 to 256', lambda v: v in range(1, 257)),
    'scan_directions': ('1, 2 or 4', lambda v: v in (1, 2, 4)),
    'wavelet_levels': ('0 to 3', lambda v: v in range(4)),
    'local_splits': ('1 to 3', lambda v: v in range(1, 4)),
    'drop_path_rate': ('in [0, 1)', lambda v: 0 <= v < 1),
}


def resolve_arch(arch: str | dict) -> dict:
    """Return the settings of a variant, or of a dict, all and checked."""
    if isinstance(arch, str):
        if arch.lower() not in ARCH_SETTINGS:
            raise ValueError(
                f'arch={arch!r} is unknown; choose one of '
                f'{", ".join(ARCH_SETTINGS)}, or give a dict.'
            )
        return {**ARCH_DEFAULTS, **ARCH_SETTINGS[arch.lower()]}
    if not {'channels', 'depths'} <= set(arch) <= set(_ALLOWED):
        raise ValueError(
            f'arch has the keys {list(arch)}; channels and depths are '
            f'needed, and allowed are {", ".join(_ALLOWED)}.'
        )
    arch = {**ARCH_DEFAULTS, **arch}
    for key, (allowed, allows) in _ALLOWED.items():
        count = 3 if isinstance(ARCH_DEFAULTS.get(key, ()), tuple) else 1
        values = arch[key] if count > 1 else [arch[key]]
        if len(values) != count or not all(map(allows, values)):
            each = 'three values, one per stage, ' if count > 1 else ''
            raise ValueError(
                f'arch[{key!r}] must be {each}{allowed}, got {arch[key]!r}.'
            )
    return arch

"""The made weights and inputs behind tests/data/golden.json."""

import json
import re
import zlib
from functools import cache
from math import prod
from pathlib import Path

import torch

from mmmobilemamba.checkpoints import key_map

DATA = Path(__file__).parent / 'data'


@cache
def cases() -> dict:
    """Return the golden cases by variant, in lower case."""
    content = json.loads((DATA / 'golden.json').read_text())
    return {case['variant'].lower(): case for case in content}


@cache
def official_keys() -> dict:
    """Return every name and shape of the published checkpoints."""
    return json.loads((DATA / 'official_keys.json').read_text())


@cache
def _published_names() -> dict:
    variants = official_keys()['classification_state_dict'].values()
    names = {name for shapes in variants for name in shapes}
    return {key_map.from_published(name): name for name in names}


def to_published(name: str) -> str:
    """Return the published name of a tensor of ours, within a model or not."""
    inner = name.removeprefix('backbone.')
    return name.removesuffix(inner) + _published_names().get(inner, inner)


def made_tensor(name: str, shape: list[int], salt: int = 0) -> torch.Tensor:
    """Make one published tensor from its name, trained-like in scale."""
    if key_map.is_haar_filter(name):
        return key_map.haar_filters(shape[0] // 4)
    if name.endswith('num_batches_tracked'):
        return torch.tensor(0)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + salt)
    r = torch.rand(shape, generator=generator)
    if re.search(r'(bn[12]?|out_norm)\.weight|running_var|_scale', name):
        return 0.5 + r
    if 'A_logs' in name:
        return r - 0.5
    if 'x_proj_weight' in name:
        return (r - 0.5) * 8 * (3 / shape[-1]) ** 0.5
    if 'dt_projs' in name:
        return (r - 0.5) * 2
    if len(shape) >= 2:
        return (r - 0.5) * 1.3 * (3 / prod(shape[1:])) ** 0.5
    return (r - 0.5) * 0.4


def made_state_dict(variant: str, salt: int = 0) -> dict[str, torch.Tensor]:
    """Make a published classification state dict, filters included."""
    shapes = official_keys()['classification_state_dict'][variant].items()
    return {name: made_tensor(name, shape, salt) for name, shape in shapes}


def made_input(case: dict) -> torch.Tensor:
    """Make the image of a golden case, (1, 3, height, width)."""
    generator = torch.Generator().manual_seed(case['input_seed'])
    size = (1, 3, case['height'], case['width'])
    return torch.rand(size, generator=generator) * 4 - 2


def relative_error(got: torch.Tensor, wanted: dict) -> float:
    """Compare a tensor with a golden record by norm, samples and shape."""
    assert list(got.shape) == wanted['shape']
    flat = got.detach().contiguous().flatten()
    values = torch.tensor(wanted['values'])
    samples = (flat[wanted['idx']] - values).norm() / values.norm()
    norm = abs(flat.norm().item() / wanted['norm'] - 1)
    return max(samples.item(), norm)

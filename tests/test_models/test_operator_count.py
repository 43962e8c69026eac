"""Operators that a forward pass starts: each one costs a GPU a launch."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmmobilemamba.models.backbones import MobileMamba
from mmmobilemamba.ops import find_extension

# They start nothing.
FREE = ('aten::empty', 'aten::_unsafe_view')


class Count(TorchDispatchMode):
    """Names of the operators that ran, without views and allocations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        alias = [value.alias_info for value in func._schema.returns]
        view = any(a is not None and not a.is_write for a in alias)
        if not view and not func.name().startswith(FREE):
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(find_extension().module is None, reason='no extension')
@pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last]
)
@pytest.mark.parametrize('deploy,most', [(True, 200), (False, 370)])
def test_s6(deploy, most, layout):
    # With gradients on, a CPU takes the operators that a GPU takes.
    model = MobileMamba('s6', deploy=deploy).eval().requires_grad_(False)
    x = torch.randn(1, 3, 224, 224).contiguous(memory_format=layout)
    with Count() as count:
        model(x)
    assert 100 < len(count.names) <= most
    scans = len([n for n in count.names if n.startswith('selective_scan::')])
    assert scans == 3 * 5  # scan, wavelet and gated norm of five blocks

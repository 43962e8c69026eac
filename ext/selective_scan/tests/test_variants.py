"""Every instruction set that this machine has gives the same results."""

import pytest
import selective_scan as ss
import torch
from scan_cases import compare, fused_case, plain_case


@pytest.fixture(params=['plain', 'avx2', 'avx512'])
def variant(request):
    try:
        ss.set_cpu_variant(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    ss.set_cpu_variant('best')


def test_name(variant):
    assert ss.cpu_variant() == variant


def test_unknown_name():
    with pytest.raises(ValueError, match='must be plain, avx2, avx512 or'):
        ss.set_cpu_variant('sse')


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16]
)
def test_both_operators(variant, dtype, layout):
    case = fused_case(2, 41, 70, rank=4, dtype=dtype, layout=layout)
    compare(
        ss.bidirectional_scan, ss.bidirectional_scan_reference, case, dtype
    )
    case = plain_case(2, 24, 45, 3, 2, dtype=dtype, layout=layout)
    compare(
        ss.selective_scan,
        ss.selective_scan_reference,
        case,
        dtype,
        delta_softplus=True,
        reverse=True,
    )


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_rounded_as_torch_does(variant, dtype, layout):
    """With B = 0, y is D * u rounded once."""
    bits = torch.arange(-(2**15), 2**15).to(torch.int16)
    u = bits.view(dtype)
    u = torch.where(u.isfinite(), u, torch.zeros_like(u))
    u = u.view(1, 1024, 64)
    if layout == 'channels_last':
        u = u.transpose(1, 2)
    dim, length = u.shape[1:]
    zeros = torch.zeros(1, 1, 1, length, dtype=dtype)
    for factor in (1.0, 1.2345, 3e-4, -0.70711):
        y = ss.selective_scan(
            u,
            torch.zeros_like(u),
            -torch.ones(dim, 1),
            zeros,
            zeros,
            torch.full((dim,), factor),
        )
        expected = (u.float() * factor).to(dtype)
        assert torch.equal(y, expected)


def test_nan_is_not_hidden(variant):
    case = fused_case(1, 40, 20)
    case['u'][0, 3, 7] = float('nan')
    y = ss.bidirectional_scan(**case)
    assert y[0, 3].isnan().all()
    assert y[0, 2].isfinite().all()
    case = fused_case(1, 40, 20, directions=1)
    case['proj'][0, 0, 0, 5] = float('nan')
    y = ss.bidirectional_scan(**case)
    assert y[0, :, 5:].isnan().all()
    assert y[0, :, :5].isfinite().all()

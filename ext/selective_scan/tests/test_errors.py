"""Wrong arguments: an error that names the argument, never a crash."""

import pytest
import selective_scan as ss
import torch
from scan_cases import fused_case, plain_case

ops = torch.ops.selective_scan


BAD_PLAIN = {
    'u': (torch.zeros(2, 6), 'u must have the shape'),
    'delta': (torch.zeros(2, 6, 8), r'delta must have the shape .*2, 6, 7'),
    'A': (torch.zeros(5, 1), r'A must have the shape .*dim = 6'),
    'A-dims': (torch.zeros(6), r'A must have the shape .*dim = 6'),
    'A-states': (torch.zeros(6, 257), 'A must have 1 to 256 states, got 257'),
    'A-stateless': (torch.zeros(6, 0), 'A must have 1 to 256 states, got 0'),
    'B': (torch.zeros(2, 1, 2, 7), r'B must have the shape .*2, 1, 1, 7'),
    'B-dims': (torch.zeros(2, 1, 7), 'B must have the shape'),
    'B-groups': (torch.zeros(2, 4, 1, 7), '4 groups, which must divide'),
    'B-groupless': (torch.zeros(2, 0, 1, 7), '0 groups, which must divide'),
    'C': (torch.zeros(2, 2, 1, 7), r'C must have the shape .*2, 1, 1, 7'),
    'D': (torch.zeros(7), r'D must have the shape \(dim,\).*6'),
    'delta_bias': (torch.zeros(6, 1), r'delta_bias must have the shape'),
}

BAD_FUSED = {
    'u': (torch.zeros(2, 6, 7, 1), 'u must have the shape'),
    'proj': (torch.zeros(2, 2, 4, 7), r'proj must have .*2, 2, 5, 7'),
    'dt_proj': (torch.zeros(3, 6, 3), 'dt_proj must have .*directions'),
    'dt_proj-inner': (torch.zeros(2, 5, 3), 'dt_proj must have .*inner = 6'),
    'dt_proj-rank': (torch.zeros(2, 6, 0), 'dt_proj must have .*rank >= 1'),
    'dt_proj-dims': (torch.zeros(6, 3), 'dt_proj must have .*directions'),
    'dt_bias': (torch.zeros(12), r'dt_bias must have .*2, 6'),
    'A': (torch.zeros(1, 6, 1), r'A must have .*2, 6, 1'),
    'A-dims': (torch.zeros(12, 1), 'A must have .*directions, inner, state'),
    'A-states': (torch.zeros(2, 6, 300), 'A must have 1 to 256 states'),
    'D': (torch.zeros(2, 7), r'D must have .*2, 6'),
}


@pytest.mark.parametrize('direct', [False, True], ids=['function', 'op'])
@pytest.mark.parametrize('name', BAD_PLAIN)
def test_selective_scan_shapes(name, direct):
    tensor, message = BAD_PLAIN[name]
    case = {**plain_case(), name.split('-')[0]: tensor}
    function = ops.selective_scan if direct else ss.selective_scan
    with pytest.raises(ValueError, match=message):
        function(**case)


@pytest.mark.parametrize('direct', [False, True], ids=['function', 'op'])
@pytest.mark.parametrize('name', BAD_FUSED)
def test_bidirectional_scan_shapes(name, direct):
    tensor, message = BAD_FUSED[name]
    case = {**fused_case(), name.split('-')[0]: tensor}
    function = ops.bidirectional_scan if direct else ss.bidirectional_scan
    with pytest.raises(ValueError, match=message):
        function(**case)


@pytest.mark.parametrize('name', ['u', 'delta', 'A', 'D'])
def test_selective_scan_wants_tensors(name):
    with pytest.raises(TypeError, match=f'{name} must be a tensor, got list'):
        ss.selective_scan(**{**plain_case(), name: [1.0]})


@pytest.mark.parametrize('name', ['u', 'proj', 'A'])
def test_integer_tensors_are_refused(name):
    case = fused_case()
    case[name] = case[name].int()
    with pytest.raises(TypeError, match=f'{name} must be float32'):
        ss.bidirectional_scan(**case)


def test_op_refuses_integer_input():
    case = fused_case()
    with pytest.raises(TypeError, match='u must be float32'):
        ops.bidirectional_scan(**{**case, 'u': case['u'].int()})


@pytest.mark.parametrize('name', ['delta', 'B', 'C', 'A', 'D', 'delta_bias'])
def test_op_wants_matching_dtypes(name):
    case = plain_case()
    case[name] = case[name].double()
    with pytest.raises(TypeError, match=f'{name} must have the dtype'):
        ops.selective_scan(**case)


@pytest.mark.parametrize('name', ['proj', 'dt_proj', 'dt_bias', 'A', 'D'])
def test_fused_op_wants_matching_dtypes(name):
    case = fused_case()
    case[name] = case[name].bfloat16()
    with pytest.raises(TypeError, match=f'{name} must have the dtype'):
        ops.bidirectional_scan(**case)


@pytest.mark.parametrize('name', ['delta', 'C', 'delta_bias'])
def test_selective_scan_wants_one_device(name):
    case = plain_case()
    case[name] = case[name].to('meta')
    with pytest.raises(ValueError, match=f'{name} is on meta and u on cpu'):
        ss.selective_scan(**case)


@pytest.mark.parametrize('name', ['proj', 'dt_proj', 'D'])
def test_bidirectional_scan_wants_one_device(name):
    case = fused_case()
    case[name] = case[name].to('meta')
    with pytest.raises(ValueError, match=f'{name} is on meta and u on cpu'):
        ss.bidirectional_scan(**case)


def test_backward_wants_a_grad_like_u():
    case = fused_case()
    with pytest.raises(ValueError, match=r'grad must have u.s shape'):
        ops.bidirectional_scan_backward(torch.zeros(2, 6, 8), **case)
    with pytest.raises(TypeError, match='grad must have the dtype'):
        ops.bidirectional_scan_backward(case['u'].double(), **case)
    case = plain_case()
    with pytest.raises(ValueError, match=r'grad must have u.s shape'):
        ops.selective_scan_backward(torch.zeros(2, 6, 8), **case)


@pytest.mark.parametrize('name', ['A', 'D'])
def test_op_wants_one_device(name):
    case = plain_case()
    case[name] = case[name].to('meta')
    # The fake kernel answers, which has no memory to compute with.
    with pytest.raises(ValueError, match=f'{name} is on meta and u on cpu'):
        ops.selective_scan(**case)
    case = fused_case()
    case[name] = case[name].to('meta')
    with pytest.raises(ValueError, match=f'{name} is on meta and u on cpu'):
        ops.bidirectional_scan_backward(case['u'], **case)


def test_sparse_tensors_are_refused():
    case = fused_case()
    with pytest.raises(TypeError, match='u must be a dense tensor'):
        ss.bidirectional_scan(**{**case, 'u': case['u'].to_sparse()})

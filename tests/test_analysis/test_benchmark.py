import json

import pytest
import torch
from torch import nn

from mmmobilemamba.analysis import benchmark, candidates
from mmmobilemamba.analysis.benchmark import (
    Settings,
    compare,
    profile_network,
    run_benchmark,
)
from mmmobilemamba.analysis.breakdown import break_down, shares_table
from mmmobilemamba.analysis.candidates import Candidate, build_candidate
from mmmobilemamba.analysis.memory import process_peak
from mmmobilemamba.analysis.preparation import (
    make_pictures,
    prepare,
    prepare_training,
)
from mmmobilemamba.analysis.requests import Form, parse_request
from mmmobilemamba.deploy import METADATA

pytest.importorskip('timm')

QUICK = Settings(batch_sizes=(1, 2), rounds=2, warmup=1, min_turn=0)
OURS, PEER = 'mobilemamba:t2@32', 'timm:test_efficientnet@64'


class Tiny(nn.Module):
    """A network that scales its input."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return (x * self.scale).flatten(1)[:, :7]


@pytest.fixture
def tiny(monkeypatch):
    """Let ``timm:SCALE`` be a tiny network, ``timm:fails`` one that fails."""

    def build(request):
        if request.network == 'fails':
            return Candidate((8, 8), nn.Linear(3, 3))
        return Candidate((8, 8), Tiny(float(request.network)))

    monkeypatch.setitem(candidates.BUILDERS, 'timm', build)


def run(*names, form=None, **changes):
    settings = Settings(**{**vars(QUICK), **changes})
    return run_benchmark([parse_request(n, form) for n in names], settings)


def norms(module):
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in module.modules() if isinstance(m, kind)]


def test_networks_of_both_kinds_side_by_side():
    plain = f'{OURS},deploy=no,backend=parallel'
    models = run(OURS, plain, PEER)
    assert [model['label'] for model in models] == [OURS, plain, PEER]
    assert [model['form']['deploy'] for model in models] == [True, False, True]
    assert models[1]['form']['backend'] == 'parallel'
    assert models[0]['params'] == models[1]['params'] == 8806682
    assert 0 < models[2]['macs'] < models[0]['macs'] == models[1]['macs']
    for model in models:
        assert model['size'] in ([32, 32], [64, 64])
        assert [result['batch'] for result in model['results']] == [1, 2]
        for result in model['results']:
            assert result['rounds'] == len(result['seconds']) == 2
            assert 0 < result['low'] <= result['median'] <= result['high']
            assert result['images_per_second'] == pytest.approx(
                result['batch'] / result['median']
            )
            assert result['peak_memory'] is None
    json.dumps(models)


def test_speeds_are_compared_round_by_round():
    def model(label, *seconds):
        return dict(label=label, results=[dict(batch=4, seconds=seconds)])

    # The machine slows down; every round still says twice as fast.
    models = [model('a', 1.0, 10.0, 100.0), model('b', 2.0, 20.0, 200.0)]
    assert compare(models, [('a', 'b')]) == [
        dict(model='a', baseline='b', batch=4, speed=2.0)
    ]


@pytest.mark.parametrize('name', [OURS, PEER, 'timm:efficientvit_m0'])
def test_ours_and_peers_are_fused_alike_and_compute_the_same(name):
    trained = build_candidate(parse_request(name))
    x = make_pictures(2, trained.size, Form())
    assert norms(trained.module)
    with torch.no_grad():
        wanted = prepare(trained, Form(deploy=False))(x)
        fused = prepare(build_candidate(parse_request(name)), Form())
        limit = 1e-3 * float(wanted.abs().max())
        torch.testing.assert_close(fused(x), wanted, rtol=0, atol=limit)
    assert not norms(fused.args[0])
    # Values of a trained network's size, not ones that grew or vanished.
    assert 1e-3 < float(wanted.std()) < 1e3


def test_form_reaches_network_and_pictures(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        nn.Module, 'compile', lambda self, **kwargs: compiled.append(kwargs)
    )
    form = Form(compile='default', channels_last=True, dtype='bfloat16')
    candidate = build_candidate(parse_request(PEER, form))
    with torch.no_grad():
        module = prepare(candidate, form).args[0]
    assert compiled == [dict(dynamic=False, mode='default')]
    weights = [m.weight for m in module.modules() if isinstance(m, nn.Conv2d)]
    x = make_pictures(2, (64, 64), form)
    for tensor in (weights[0], x):
        assert tensor.dtype == torch.bfloat16
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_backend_is_chosen_while_building_only(monkeypatch):
    monkeypatch.setenv('MMMOBILEMAMBA_SCAN', 'reference')
    request = parse_request(f'{OURS},backend=parallel')
    module = build_candidate(request).module
    found = {m.backend for m in module.modules() if hasattr(m, 'A_log')}
    assert found == {'parallel'}
    module = build_candidate(parse_request(OURS)).module
    found = {m.backend for m in module.modules() if hasattr(m, 'A_log')}
    assert found == {'reference'}


def test_training_runs_backward_through_every_parameter():
    candidate = build_candidate(parse_request(PEER))
    step = prepare_training(candidate, Form(deploy=False))
    x = make_pictures(4, (64, 64), Form())
    loss = step(x)
    assert torch.isfinite(loss)
    parameters = list(candidate.module.parameters())
    assert all(p.grad is not None for p in parameters)
    (model,) = run(PEER, form=Form(deploy=False), train=True, batch_sizes=(4,))
    assert model['results'][0]['median'] > 0


def test_process_is_left_as_it_was(tiny):
    before = torch.get_num_threads(), torch.is_grad_enabled()
    run('timm:1', threads=before[0] + 1)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == before


def test_broken_network_is_not_timed(tiny, monkeypatch):
    def time(*args, **kwargs):
        raise AssertionError('it was timed')

    monkeypatch.setattr(benchmark, 'time_interleaved', time)
    with pytest.raises(ValueError, match='timm:inf gives values that are not'):
        run('timm:1', 'timm:inf')
    with pytest.raises(ValueError, match='timm:fails does not run on 8x8'):
        run('timm:fails')


def test_weights_are_not_packed_where_gradients_are_kept(monkeypatch):
    modes = set()

    class Asks(Tiny):
        def forward(self, x):
            modes.add(
                (torch.is_inference_mode_enabled(), torch.is_grad_enabled())
            )
            return super().forward(x)

    def build(request):
        modes.clear()
        return Candidate((8, 8), Asks())

    monkeypatch.setitem(candidates.BUILDERS, 'timm', build)
    run('timm:1')
    assert (True, False) in modes
    run('timm:1,pack=no')
    assert (False, True) in modes
    assert not any(inference for inference, _ in modes)


@pytest.fixture
def written(tmp_path):
    """Give a function that writes a file of one operator."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')

    def call(name, operator='Relu', size=(8, 12)):
        shape = [None, 3, *(size or (None, None))]
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node(operator, ['image'], ['output'])],
            'graph',
            [value('image', onnx.TensorProto.FLOAT, shape)],
            [value('output', onnx.TensorProto.FLOAT, shape)],
        )
        opset = onnx.helper.make_opsetid('', 17)
        model = onnx.helper.make_model(
            graph, opset_imports=[opset], ir_version=8
        )
        said = dict(size=size, batch=None, min_size=1)
        onnx.helper.set_model_props(model, {METADATA: json.dumps(said)})
        onnx.save(model, tmp_path / name)
        return str(tmp_path / name)

    return call


def test_exported_file_is_timed_by_its_runtime(written):
    path = written('fixed.onnx')
    (model,) = run(path)
    assert (model['size'], model['macs']) == ([8, 12], None)
    assert model['results'][1]['images_per_second'] > 0
    path = written('any.onnx', size=None)
    with pytest.raises(ValueError, match='any.onnx@224'):
        run(path)
    assert run(f'{path}@32')[0]['size'] == [32, 32]
    # the pictures have values below 0
    with pytest.raises(ValueError, match='not finite'):
        run(written('sqrt.onnx', 'Sqrt'))


def test_network_in_a_runtime(tmp_path):
    pytest.importorskip('onnxruntime')
    names = ('scan:16@4', 'scan:16@4,runtime=onnxruntime')
    other = f'{names[1]},scan=scan'
    models = run(*names, other, export_dir=str(tmp_path))
    assert [model['form']['runtime'] for model in models] == [
        None,
        'onnxruntime',
        'onnxruntime',
    ]
    assert models[0]['macs'] == models[1]['macs'] > 0
    # One file per form and batch size, taken again by the next run.
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 4
    run(names[1], export_dir=str(tmp_path))
    assert files == {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ('name', 'changes', 'said'),
    [
        ('scan:16@4,runtime=onnxruntime', dict(train=True), 'does not train'),
        ('scan:16@4,runtime=onnxruntime', dict(memory=True), 'of a file only'),
        ('net.py,runtime=onnxruntime', {}, 'export_onnx.py'),
        ('scan:x@4', {}, 'scan:160@14'),
    ],
)
def test_what_no_runtime_takes(name, changes, said):
    if 'train' in changes:
        name += ',deploy=no'
    with pytest.raises(ValueError, match=said):
        run(name, **changes)


@pytest.mark.parametrize(
    ('names', 'changes', 'said'),
    [
        ([], {}, 'at least one'),
        (['timm:1', 'timm:1'], {}, 'more than once'),
        (['timm:1'], dict(pairs=(('timm:1', 'x'),)), 'x is to be compared'),
        (['timm:1'], dict(train=True), 'deploy=no'),
        (['timm:1'], dict(batch_sizes=(0,)), 'batch_sizes'),
        (['timm:1'], dict(batch_sizes=()), 'batch_sizes'),
        (['timm:1'], dict(rounds=0), 'rounds'),
        (['timm:1'], dict(threads=0), 'threads'),
    ],
)
def test_wrong_settings_are_named(tiny, names, changes, said):
    with pytest.raises(ValueError, match=said):
        run(*names, **changes)


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('mobilemamba:b3', 't2, t4, s6, b1, b2, b4'),
        ('timm:efficientvit_m55', 'efficientvit_m5'),
    ],
)
def test_unknown_network_comes_with_near_ones(name, said):
    with pytest.raises(ValueError, match=said):
        run(name)


def test_profile_names_modules_and_operators():
    said = profile_network(parse_request(PEER), QUICK)
    for name in ('EfficientNet >', 'InvertedResidual', 'conv', 'batch 2'):
        assert name in said
    with pytest.raises(ValueError, match='eagerly'):
        profile_network(parse_request(f'{PEER},compile=default'), QUICK)


def test_profile_counts_each_second_once():
    class Inner(Tiny):
        pass

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(Inner(), Inner())

        def forward(self, x):
            return self.inner(x).sin()

    net, x = Outer(), torch.ones(4, 9)
    modules, operators = break_down(lambda: net(x), net, repeats=3)
    calls = {item.name: item.calls for item in modules}
    assert calls == {'Outer': 1, 'Outer > Inner': 2}
    calls = {item.name: item.calls for item in operators}
    assert (calls['aten::sin'], calls['aten::mul']) == (1, 2)
    for shares in (modules, operators):
        assert sum(item.share for item in shares) == pytest.approx(1)
    total = sum(item.seconds for item in modules)
    assert total == pytest.approx(sum(item.seconds for item in operators))
    table = shares_table('operator', operators, rows=1).splitlines()
    assert len(table) == 4
    assert 'more |' in table[-1]


def test_memory_holds_the_pictures():
    peak = process_peak(parse_request(f'{PEER[:-3]}@224'), 32, 1)
    if peak is None:
        pytest.skip('this system does not tell the memory of a process')
    assert 32 * 3 * 224 * 224 * 4 < peak < 2**31

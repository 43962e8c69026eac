"""Networks in their forms: what is fused, checked and timed in turn."""

import json

import pytest
import torch
from torch import nn

from mmmobilemamba.analysis import benchmark
from mmmobilemamba.analysis.benchmark import Form, time_interleaved
from mmmobilemamba.analysis.networks import parse_network
from mmmobilemamba.deploy import METADATA

pytest.importorskip('timm')

OURS = 't2@32'


@pytest.fixture
def taking(monkeypatch):
    """Give a function that makes a call of given seconds; calls are listed."""

    def taking(seconds, name=''):
        def call():
            taking.now += seconds
            taking.said += name

        return call

    taking.now, taking.said = 100.0, ''
    monkeypatch.setattr(benchmark, 'perf_counter', lambda: taking.now)
    monkeypatch.setattr(benchmark, 'sleep', lambda seconds: None)
    return taking


def test_turns_are_interleaved_and_their_order_reversed(taking):
    calls = {name: taking(1, name) for name in 'abc'}
    time_interleaved(calls, rounds=3, warmup=1)
    assert taking.said == 'abc' + 'abc' + 'cba' + 'abc'


def test_quick_calls_are_repeated_within_a_turn(taking):
    calls = {'quick': taking(0.03), 'slow': taking(3.0)}
    found = time_interleaved(calls, rounds=2, warmup=1)
    assert found['quick'] == pytest.approx([0.03, 0.03])
    # Warm-up, then four calls and one before them in each round.
    assert taking.now == pytest.approx(100 + 3.03 + 2 * (5 * 0.03 + 3))


def test_budget_ends_the_rounds(taking):
    found = time_interleaved(dict(a=taking(1)), rounds=99, budget=10.0)
    assert len(found['a']) == 10


@pytest.fixture
def tiny(monkeypatch):
    """Let every network be a tiny one."""

    def use(*modules):
        built = nn.Sequential(*modules, nn.Flatten()).eval(), (8, 8)
        monkeypatch.setattr(benchmark, 'build_network', lambda spec: built)

    return use


def entry(name, **form):
    return benchmark._Entry(parse_network(name), Form(**form))


def run(name):
    specs = [parse_network(name)]
    return benchmark.run_benchmark(specs, Form(), [1], rounds=1)[0]


def norms(module):
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in module.modules() if isinstance(m, kind)]


@pytest.mark.parametrize('name', [OURS, 'efficientvit_m0', 'mobilenetv2_035'])
def test_ours_and_peers_are_fused_alike_and_compute_the_same(name):
    trained, fused = entry(name, deploy=False), entry(name)
    wanted, found = trained.call_on(2)(), fused.call_on(2)()
    limit = 1e-3 * float(wanted.abs().max())
    torch.testing.assert_close(found, wanted, rtol=0, atol=limit)
    assert len(norms(fused.module)) <= 1 < len(norms(trained.module))
    # Values of a trained network's size, not ones that grew or vanished.
    assert 1e-3 < float(wanted.std()) < 1e3


def test_norm_that_runs_elsewhere_is_left(tiny):
    class Before(nn.Sequential):
        def forward(self, x):
            return self[0](self[1](x).relu())

    tiny(Before(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    assert norms(entry('t2').module)


def test_form_reaches_network_and_images(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(nn.Module, 'compile', lambda *a, **k: seen.append(a))
    conv = nn.Conv2d(3, 3, 2)
    tiny(conv)
    conv.register_forward_hook(lambda module, args, y: seen.append(*args))
    made = entry('t2,dtype=bfloat16,compile=yes', channels_last=True)
    made.call_on(2)()
    assert (made.module,) in seen
    for tensor in (made.module[0].weight, seen[-1]):
        assert tensor.dtype == torch.bfloat16
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_broken_network_is_not_timed(tiny):
    tiny(nn.Conv2d(3, 3, 1), nn.Threshold(1e9, float('inf')))
    with pytest.raises(ValueError, match='t2 gives values not finite'):
        run('t2')


def test_exported_file(tmp_path):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> graph (float[N, 1, H, W] '
        'image) => (float[N, 1, H, W] output) { output = Relu(image) }'
    )
    for size, name in (((8, 12), 'fixed'), (None, 'any')):
        said = dict(size=size, batch=None, min_size=1, channels=1)
        onnx.helper.set_model_props(model, {METADATA: json.dumps(said)})
        onnx.save(model, tmp_path / f'{name}.onnx')
    found = run(f'{tmp_path}/fixed.onnx')
    assert (found['size'], found['macs']) == ([8, 12], None)
    with pytest.raises(ValueError, match='any.onnx@224'):
        run(f'{tmp_path}/any.onnx')
    assert run(f'{tmp_path}/any.onnx@32')['size'] == (32, 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_graph_computes_what_the_network_does():
    forms = (dict(device='cuda', cuda_graph=graph) for graph in (False, True))
    found = [entry(OURS, **form).call_on(2)() for form in forms]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)

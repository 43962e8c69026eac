"""Networks in their forms: what is fused, checked and timed."""

import json

import pytest
import torch
from torch import nn

from mmmobilemamba.analysis import benchmark
from mmmobilemamba.analysis.benchmark import Form, run_benchmark
from mmmobilemamba.analysis.networks import parse_network
from mmmobilemamba.deploy import METADATA

pytest.importorskip('timm')

OURS = 'mobilemamba:t2@32'


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
    return run_benchmark(specs, Form(), [1, 2], rounds=2, warmup=1)[0]


def norms(module):
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in module.modules() if isinstance(m, kind)]


@pytest.mark.parametrize(
    'name', [OURS, 'timm:efficientvit_m0', 'timm:mobilenetv2_035@64']
)
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
    compiled, seen = [], []
    monkeypatch.setattr(
        nn.Module, 'compile', lambda self, **kwargs: compiled.append(kwargs)
    )
    conv = nn.Conv2d(3, 3, 2)
    tiny(conv)
    conv.register_forward_hook(lambda module, args, y: seen.append(*args))
    made = entry('t2,dtype=bfloat16', compile=True, channels_last=True)
    made.call_on(2)()
    assert compiled
    for tensor in (made.module[0].weight, seen[-1]):
        assert tensor.dtype == torch.bfloat16
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_broken_network_is_not_timed(tiny, monkeypatch):
    monkeypatch.setattr(benchmark, 'time_interleaved', pytest.fail)
    tiny(nn.Conv2d(3, 3, 1), nn.Threshold(1e9, float('inf')))
    with pytest.raises(ValueError, match='t2 gives values not finite'):
        run('t2')


def test_exported_file(tmp_path):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')

    def written(name, operator, size):
        sides = ', '.join(map(str, size or ('H', 'W')))
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> graph '
            f'(float[N, 1, {sides}] image) => (float[N, 1, {sides}] output) '
            f'{{ output = {operator}(image) }}'
        )
        said = dict(size=size, batch=None, min_size=1, channels=1)
        onnx.helper.set_model_props(model, {METADATA: json.dumps(said)})
        onnx.save(model, tmp_path / name)
        return str(tmp_path / name)

    model = run(written('fixed.onnx', 'Relu', (8, 12)))
    assert (model['size'], model['macs']) == ([8, 12], None)
    assert min(model['results'][1]['seconds']) > 0
    path = written('any.onnx', 'Relu', None)
    with pytest.raises(ValueError, match='any.onnx@224'):
        run(path)
    assert run(f'{path}@32')['size'] == (32, 32)
    # The images have values below 0.
    with pytest.raises(ValueError, match='not finite'):
        run(written('sqrt.onnx', 'Sqrt', (8, 8)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_graph_computes_what_the_network_does():
    forms = (dict(device='cuda', cuda_graph=graph) for graph in (False, True))
    found = [entry(OURS, **form).call_on(2)() for form in forms]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)

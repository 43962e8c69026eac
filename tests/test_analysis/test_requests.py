import pytest

from mmmobilemamba.analysis import requests, runtime_tables
from mmmobilemamba.analysis.published import PAPER_MODELS, PAPER_PAIRS
from mmmobilemamba.analysis.requests import Form, parse_request


@pytest.mark.parametrize(
    ('text', 'kind', 'network', 'size'),
    [
        ('mobilemamba:b1@256', 'mobilemamba', 'b1', (256, 256)),
        ('mobilemamba:b1', 'mobilemamba', 'b1', None),
        ('timm:shvit_s4@192x320', 'timm', 'shvit_s4', (192, 320)),
        ('a/b_c-d.py@800x1344', 'config', 'a/b_c-d.py', (800, 1344)),
        ('config:a.txt', 'config', 'a.txt', None),
        ('net.onnx', 'onnx', 'net.onnx', None),
    ],
)
def test_names(text, kind, network, size):
    request = parse_request(text)
    assert (request.kind, request.network, request.size) == (
        kind,
        network,
        size,
    )
    assert request.label == text


def test_options_of_one_network_go_before_those_of_the_run():
    run = Form(dtype='bfloat16', compile='default')
    form = parse_request(
        'mobilemamba:b1@64,deploy=no,backend=parallel,compile=no', run
    ).form
    assert form == Form(deploy=False, backend='parallel', dtype='bfloat16')
    assert parse_request('timm:x,channels_last=yes').form.channels_last
    form = parse_request('scan:8@4,runtime=openvino,scan=chunked,chunk=4').form
    assert form == Form(runtime='openvino', scan='chunked', chunk=4)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('mobilemamba', 'KIND:NETWORK'),
        ('tim:efficientvit_m5', 'Did you mean timm:efficientvit_m5'),
        ('timm:', 'names no network'),
        ('timm:x@0', "SIDE or HEIGHTxWIDTH in pixels, got '0'"),
        ('timm:x@224x', '224x'),
        ('timm:x@-5', 'in pixels'),
        ('timm:x,deploy', 'KEY=VALUE'),
        ('timm:x,deploy=maybe', 'deploy must be yes or no'),
        ('timm:x,deplo=no', 'allowed: deploy, backend'),
        ('timm:x,dtype=int8', 'float32, bfloat16, float16'),
        ('timm:x,backend=fast', 'extension, parallel, reference'),
        ('timm:x,compile=most', 'reduce-overhead'),
        ('timm:x,runtime=tensorrt', 'onnxruntime, openvino'),
        ('timm:x,runtime=openvino,compile=default', 'its own compiler'),
        ('timm:x,scan=prefix', 'chunked, doubling, scan'),
        ('timm:x,chunk=1', 'chunk must be 2 or more'),
    ],
)
def test_what_a_name_has_wrong_is_said(text, said):
    with pytest.raises(ValueError, match=said) as raised:
        parse_request(text)
    assert text in str(raised.value)


def test_forms_of_an_exported_scan_are_those_there_are():
    scan = pytest.importorskip('mmmobilemamba.deploy.scan')
    assert requests.SCANS == scan.FORMS


@pytest.mark.parametrize(
    ('models', 'pairs'),
    [
        (PAPER_MODELS, PAPER_PAIRS),
        (runtime_tables.DEPLOY_MODELS, runtime_tables.DEPLOY_PAIRS),
        (runtime_tables.SCAN_MODELS, runtime_tables.SCAN_PAIRS),
    ],
)
def test_tables_compare_what_they_time(models, pairs):
    labels = {parse_request(name).label for name in models}
    assert len(labels) == len(models)
    assert {label for pair in pairs for label in pair} <= labels


def test_published_accuracy_holds_for_its_size_only():
    assert parse_request('mobilemamba:b1@256').published.top1 == 79.9
    assert parse_request('mobilemamba:b1').published.top1 == 79.9
    assert parse_request('mobilemamba:b1@224').published is None
    assert parse_request('timm:resnet18').published is None


def test_every_network_of_the_table_is_there():
    timm = pytest.importorskip('timm')
    requests = [parse_request(text) for text in PAPER_MODELS]
    assert all(request.published.source for request in requests)
    peers = [r.network for r in requests if r.kind == 'timm']
    assert [name for name in peers if not timm.is_model(name)] == []
    ours = [r.network for r in requests if r.kind == 'mobilemamba']
    assert ours == ['t2', 't4', 's6', 'b1', 'b4']
    assert {label for pair in PAPER_PAIRS for label in pair} <= set(
        PAPER_MODELS
    )

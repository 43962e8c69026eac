"""An exported file computes what its model does, or is not there."""

import copy
import json

import numpy as np
import onnx
import pytest
import torch

from mmmobilemamba.deploy import detectors
from mmmobilemamba.deploy.arguments import ExportOptions
from mmmobilemamba.deploy.export import export_model
from mmmobilemamba.deploy.session import Session

SIZE = (96, 80)


def attempt(model, path, kind='detector', **options):
    """Export to a folder that has nothing else in it."""
    options = ExportOptions(SIZE, **options)
    return export_model(model, kind, path / 'model.onnx', options)


@pytest.mark.parametrize(
    'name', ['classifier', 'segmentor', 'retinanet', 'mask_rcnn']
)
def test_every_kind(export, name):
    path, report = export(name, preprocess=True)
    if name in ('retinanet', 'mask_rcnn'):
        assert all(c.boxes for c in report)
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {''}
    (about,) = (json.loads(p.value) for p in model.metadata_props)
    assert about['preprocess'] and about['size'] == list(SIZE)


def test_free_sizes(export, make_model):
    _, report = export('mask_rcnn', dynamic_size=True)
    # Odd sizes and such that are no multiple of 64 are among them.
    assert len({c.size for c in report}) == 3
    path, _ = export('segmentor', dynamic_size=True)
    # The scan has more levels here than at the traced size.
    image = torch.randn(1, 3, 352, 400)
    with torch.no_grad():
        meta = dict(img_shape=(352, 400))
        wanted = make_model('segmentor').encode_decode(image, [meta])
    got = Session(path)(image.numpy())['logits']
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('channels', [3, 4])
def test_scores_are_the_hosts(make_model, tmp_path, channels):
    numbers = tuple(range(50, 50 + channels))
    head = {3: 'LinearClsHead', 4: 'MultiLabelLinearClsHead'}[channels]
    changes = {'model.backbone.in_channels': channels, 'model.head.type': head}
    for name in ('mean', 'std'):
        changes[f'model.data_preprocessor.{name}'] = numbers
    model = make_model('classifier', **changes)
    free = dict(dynamic_batch=True, preprocess=True)
    attempt(model, tmp_path, 'classifier', **free)
    pixels = torch.randint(256, (3, channels, *SIZE), dtype=torch.uint8)
    inputs = model.data_preprocessor(dict(inputs=pixels))['inputs']
    with torch.no_grad():
        wanted = [y.pred_score for y in model(inputs, mode='predict')]
    got = Session(tmp_path / 'model.onnx')(pixels.numpy())['scores']
    np.testing.assert_allclose(got, torch.stack(wanted), rtol=1e-4, atol=1e-5)


def test_mismatch_leaves_no_file_and_the_model_as_it_is(make_model, tmp_path):
    model = make_model('classifier')
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match='scores differs'):
        attempt(model, tmp_path, 'classifier', tolerance=1e-12)
    assert not list(tmp_path.iterdir())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize('name', ['retinanet', 'mask_rcnn'])
def test_scores_that_are_all_equal(make_model, tmp_path, name):
    """The scores of the dense head are 1 nearly everywhere."""
    model = copy.deepcopy(make_model(name))
    two_stages = hasattr(model, 'rpn_head')
    head = model.rpn_head.rpn_cls if two_stages else model.bbox_head.retina_cls
    torch.nn.init.constant_(head.bias, 30.0)
    assert attempt(model, tmp_path)[0].boxes


@pytest.mark.parametrize(
    ('name', 'function', 'damage'),
    [
        ('retinanet', '_decode', lambda boxes: boxes + 1),
        ('retinanet', 'suppress', lambda got: (got[0], got[1] / 2, *got[2:])),
        ('mask_rcnn', '_extract', lambda pooled: pooled.flip(-1)),
    ],
)
def test_wrong_boxes_leave_no_file(
    make_model, tmp_path, monkeypatch, name, function, damage
):
    right = getattr(detectors, function)
    monkeypatch.setattr(detectors, function, lambda *a: damage(right(*a)))
    with pytest.raises(ValueError, match='no file was written'):
        attempt(make_model(name), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_refused_of_detectors(make_model, tmp_path):
    with pytest.raises(ValueError, match='no free batch'):
        attempt(make_model('retinanet'), tmp_path, dynamic_batch=True)
    model = copy.deepcopy(make_model('retinanet'))
    model.bbox_head.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(ValueError, match='soft_nms'):
        attempt(model, tmp_path)

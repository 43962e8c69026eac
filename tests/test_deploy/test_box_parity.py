"""Boxes that exchange ranks with equals pass, boxes that are wrong do not."""

import copy

import pytest
import torch

pytest.importorskip('mmdet')

from mmcv.ops import batched_nms  # noqa: E402

from mmmobilemamba.deploy import detectors  # noqa: E402
from mmmobilemamba.deploy.box_parity import (  # noqa: E402
    Boxes,
    Choice,
    judge_ties,
    match_boxes,
)
from mmmobilemamba.deploy.export import (  # noqa: E402
    ExportOptions,
    ParityError,
    export_model,
)
from mmmobilemamba.deploy.host_boxes import HostDetector  # noqa: E402
from mmmobilemamba.deploy.pictures import random_image  # noqa: E402

SIDE, TOLERANCE, IOU, THRESHOLD = 200, 1e-4, 0.5, 0.1


@pytest.fixture(scope='module')
def candidates():
    """Crowded boxes, of which many have equal scores."""
    torch.manual_seed(0)
    corner = torch.rand(300, 2) * 120
    places = torch.cat((corner, corner + 20 + torch.rand(300, 2) * 40), 1)
    scores = (torch.rand(300) * 8).ceil() / 8
    return Boxes(places, scores, torch.randint(3, (300,)))


def select(boxes, order=None, iou=IOU, count=None):
    """Keep what suppression keeps, equals in the given order."""
    boxes = boxes.take(torch.arange(300) if order is None else order)
    settings = dict(type='nms', iou_threshold=iou)
    _, kept = batched_nms(boxes.places, boxes.scores, boxes.labels, settings)
    return boxes.take(kept[:count])


def judge(found, wanted, candidates, count=None):
    match = match_boxes(found, wanted, SIDE, TOLERANCE)
    choice = Choice(candidates, IOU, (THRESHOLD,), count or 300)
    return match, judge_ties(found, wanted, match, choice, SIDE, TOLERANCE)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('count', [None, 20])
def test_equal_scores_in_another_order(candidates, seed, count):
    wanted = select(candidates, count=count)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
    found = select(candidates, order, count=count)
    match, problems = judge(found, wanted, candidates, count)
    assert len(match.rows) < len(wanted)  # there is something to explain
    assert problems == []


def moved(found):
    found.places[3] += 3.0


def rescored(found):
    found.scores[3] -= 0.06


def relabelled(found):
    found.labels[3] = (found.labels[3] + 1) % 3


@pytest.mark.parametrize('damage', [moved, rescored, relabelled])
def test_a_box_that_is_none(candidates, damage):
    wanted = select(candidates)
    found = copy.deepcopy(wanted)
    damage(found)
    problems = judge(found, wanted, candidates)[1]
    assert any('none that the model predicts' in p for p in problems)


def test_a_box_that_is_left_out(candidates):
    wanted = select(candidates)
    found = wanted.take([i for i in range(len(wanted)) if i != 3])
    (problem,) = judge(found, wanted, candidates)[1]
    assert problem == f'1 of {len(wanted)} boxes have no counterpart'
    nothing = wanted.take([])
    (problem,) = judge(nothing, wanted, candidates)[1]
    assert problem.startswith(f'{len(wanted)} of {len(wanted)} boxes')


def test_a_box_too_many(candidates):
    low = Boxes(
        torch.tensor([[180.0, 180, 190, 190]]),
        torch.tensor([0.4]),
        torch.tensor([0]),
    )
    wanted = select(candidates)
    found = Boxes(
        torch.cat((wanted.places, low.places)),
        torch.cat((wanted.scores, low.scores)),
        torch.cat((wanted.labels, low.labels)),
    )
    known = Boxes(
        torch.cat((candidates.places, low.places)),
        torch.cat((candidates.scores, low.scores)),
        torch.cat((candidates.labels, low.labels)),
    )
    (problem,) = judge(found, wanted, known)[1]
    assert problem == '1 boxes are too many'


@pytest.mark.parametrize('iou', [0.4, 0.6])
def test_suppression_at_another_overlap(candidates, iou):
    found = select(candidates, iou=iou)
    problems = judge(found, select(candidates), candidates)[1]
    wanted = 'suppress each other' if iou > IOU else 'no counterpart'
    assert any(wanted in p for p in problems)


def saturated(model, name):
    """Let the scores of a head be 1 nearly everywhere."""
    model = copy.deepcopy(model)
    head = model.get_submodule(name)
    torch.nn.init.constant_(head.bias, 30.0)
    return model


HEADS = dict(retinanet='bbox_head.retina_cls', mask_rcnn='rpn_head.rpn_cls')


def export(model, path):
    options = ExportOptions(size=(96, 80))
    return export_model(model, 'detector', path / 'model.onnx', options)


@pytest.mark.parametrize('name', HEADS)
def test_network_whose_scores_saturate(make_model, tmp_path, name):
    report = export(saturated(make_model(name), HEADS[name]), tmp_path)
    assert sum(c.ties for c in report.comparisons)
    assert 'boxes by the outcome of ties' in str(report)


@pytest.mark.parametrize('saturate', [True, False])
@pytest.mark.parametrize('name', HEADS)
def test_wrong_boxes_leave_no_file(
    make_model, tmp_path, monkeypatch, name, saturate
):
    decode = detectors.Detector._decode

    def shifted(self, head, prior, delta, size):
        return decode(self, head, prior + 1, delta, size)

    monkeypatch.setattr(detectors.Detector, '_decode', shifted)
    model = make_model(name)
    if saturate:
        model = saturated(model, HEADS[name])
    with pytest.raises(ParityError, match='none that the model predicts'):
        export(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_wrong_suppression_leaves_no_file(make_model, tmp_path, monkeypatch):
    suppress = detectors.suppress

    def lax(boxes, scores, labels, iou_thr, *args):
        return suppress(boxes, scores, labels, iou_thr + 0.1, *args)

    monkeypatch.setattr(detectors, 'suppress', lax)
    model = saturated(make_model('retinanet'), HEADS['retinanet'])
    with pytest.raises(ParityError, match='should suppress each other'):
        export(model, tmp_path)


@pytest.fixture(scope='module')
def masked(make_model):
    """A model whose masks are parts of their boxes, with clear edges."""
    model = copy.deepcopy(make_model('mask_rcnn'))
    logits, seen = model.roi_head.mask_head.conv_logits, []
    hook = logits.register_forward_hook(lambda *args: seen.append(args[-1]))
    image = random_image(ExportOptions(), (96, 80), seed=1)
    with torch.no_grad():
        HostDetector(model, 1, image).predict()
        hook.remove()
        (values,) = seen
        scale = 5 / values.std()
        middle = values.median() - logits.bias.mean()
        logits.weight.mul_(scale)
        logits.bias.sub_(middle).mul_(scale)
    return model


DAMAGE = dict(
    inverted=lambda masks: 1 - masks,
    mirrored=lambda masks: masks.flip(-1),
    upside_down=lambda masks: masks.flip(-2),
    shifted=lambda masks: masks.roll(1, -1),
)


@pytest.mark.parametrize('name', DAMAGE)
def test_wrong_masks_leave_no_file(masked, tmp_path, monkeypatch, name):
    mask = detectors.MaskRCNN._mask

    def damaged(self, *args):
        return DAMAGE[name](mask(self, *args))

    monkeypatch.setattr(detectors.MaskRCNN, '_mask', damaged)
    with pytest.raises(ParityError, match='masks differ'):
        export(masked, tmp_path)
    assert not list(tmp_path.iterdir())


def test_right_masks_agree(masked, tmp_path):
    report = export(masked, tmp_path)
    assert all(c.masks and c.masks == c.boxes for c in report.comparisons)

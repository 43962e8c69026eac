"""Anchors are counted as the loss of a detector matches them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet')

from mmdet.models.task_modules import AnchorGenerator, MaxIoUAssigner
from mmengine.structures import InstanceData

from mmmobilemamba.analysis.anchor_matches import (
    anchor_head,
    count_matches,
    list_matches,
)


@pytest.fixture
def model():
    """A model whose head has anchors of 16 px around every eighth pixel."""
    head = nn.Module()
    # Named in full, whatever scope an earlier test has left.
    head.assigner = MaxIoUAssigner(
        0.5,
        0.4,
        min_pos_iou=0.3,
        iou_calculator=dict(type='mmdet.BboxOverlaps2D'),
    )
    head.prior_generator = AnchorGenerator(
        strides=[8], ratios=[1.0], octave_base_scale=2, scales_per_octave=1
    )
    model = nn.Module()
    model.bbox_head = head
    return model


def sample(*boxes, labels, size=(30, 30)):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    instances = InstanceData(bboxes=boxes, labels=torch.tensor(labels))
    return SimpleNamespace(gt_instances=instances, img_shape=size)


def test_counts_by_class(model):
    head = anchor_head(model)
    samples = [
        # An anchor itself; between two, each with an IoU of 0.6; too small
        # for any, so that none learns it.
        sample((8, 8, 24, 24), (4, 0, 20, 16), labels=[0, 0]),
        sample((1, 1, 3, 3), labels=[2]),
        sample(labels=[]),
    ]
    found = count_matches(head, samples, divisor=32)
    assert found[0].anchors == [1, 2]
    assert found[0].mean == 1.5 and found[0].poor == 0.5
    assert found[2].anchors == [0] and found[2].poor == 1
    assert found[2].side == 2
    assert set(found) == {0, 2}


def test_padding_makes_more_anchors(model):
    """A box at the edge is learned by an anchor beyond the picture."""
    edge = [sample((24, 24, 30, 30), labels=[0], size=(18, 18))]
    head = anchor_head(model)
    head.assigner.min_pos_iou = 0.01
    priors = head.prior_generator.grid_priors([(3, 3)], device='cpu')[0]
    assert priors[:, 2].max() == 24
    assert count_matches(head, edge, divisor=1)[0].anchors == [0]
    assert count_matches(head, edge, divisor=32)[0].anchors == [1]


def test_lines_name_classes_without_boxes(model):
    found = count_matches(
        anchor_head(model), [sample((8, 8, 24, 24), labels=[1])]
    )
    lines = list(list_matches(found, ('red', 'white')))
    assert lines[1].split() == ['red', '0']
    assert lines[2].split() == ['white', '1', '16.0', '1.0', '100%']


def test_other_detectors_are_refused():
    with pytest.raises(ValueError, match='MaxIoUAssigner.*got Linear'):
        anchor_head(nn.Linear(1, 1))

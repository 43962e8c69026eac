"""What is written to be exported computes what it stands for."""

import pytest
import torch
from mmcv.ops import batched_nms

from mmmobilemamba.deploy.boxes import suppress
from mmmobilemamba.deploy.layers import MatrixPool
from mmmobilemamba.deploy.modules import (
    ExportGlobalPath,
    make_exportable,
    softplus,
)
from mmmobilemamba.deploy.scan import FORMS, chunk_of, linear_recurrence
from mmmobilemamba.deploy.widths import ExportMixer
from mmmobilemamba.models.backbones import MobileMamba
from mmmobilemamba.models.layers.mixer import GlobalPath


@pytest.mark.parametrize('length', [1, 2, 7, 8, 9, 64, 65, 257])
@pytest.mark.parametrize('fixed', [True, False])
@pytest.mark.parametrize('form', FORMS)
def test_forms_of_the_recurrence(form, fixed, length):
    torch.manual_seed(length)
    a, b = torch.rand(2, 2, length, 5), torch.randn(2, 2, length, 5)
    if form == 'doubling' and not fixed:
        with pytest.raises(ValueError, match='doubling'):
            linear_recurrence(a, b, None, form)
        return
    state, wanted = torch.zeros(2, 2, 5), []
    for t in range(length):
        state = a[:, :, t] * state + b[:, :, t]
        wanted.append(state)
    got = linear_recurrence(a, b, length if fixed else None, form)
    torch.testing.assert_close(got, torch.stack(wanted, 2))


@pytest.mark.parametrize(
    ('length', 'chunk'),
    [(None, 8), (196, 14), (256, 16), (64, 8), (49, 7), (4200, 30), (37, 8)],
)
def test_chunks_fill_the_length(length, chunk):
    assert chunk_of(length) == chunk


def test_softplus():
    x = torch.tensor([-200.0, -20.0, -1.0, 0.0, 3.0, 29.9, 30.1, 90.0, 1e9])
    wanted = torch.nn.functional.softplus(x)
    torch.testing.assert_close(softplus(x), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(('local', 'splits'), [(0.3, 1), (1.0, 1), (0.3, 2)])
def test_mixer_and_stem_in_other_widths(local, splits):
    """Odd numbers of channels are filled up and change nothing."""
    torch.manual_seed(0)
    arch = dict(
        channels=(40, 44, 48),
        depths=(1, 1, 1),
        global_ratios=(0.4,) * 3,
        local_ratios=(local,) * 3,
        local_splits=splits,
    )
    model = MobileMamba(arch)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 and 'A_log' not in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.0)
    model.eval().requires_grad_(False)
    x = torch.randn(1, 3, 70, 90)
    wanted = model(x)
    model.switch_to_deploy()
    exported = torch.nn.Sequential(model)
    make_exportable(exported, fixed_size=True)
    mixers = [m for m in exported.modules() if isinstance(m, ExportMixer)]
    assert len(mixers) == (0 if local == 1 or splits == 2 else 3)
    assert all(layer.conv.out_channels % 8 == 0 for layer in model.stem)
    for one, other in zip(exported(x), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('directions', [1, 2, 4])
@pytest.mark.parametrize('levels', [0, 1, 2])
@pytest.mark.parametrize('fixed', [True, False])
def test_global_path(directions, levels, fixed):
    torch.manual_seed(0)
    path = GlobalPath(
        16,
        3,
        levels,
        d_state=directions,
        scan_directions=directions,
    )
    for parameter in path.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path.eval()
    x = torch.randn(2, 16, 7, 10)
    with torch.no_grad():
        wanted = path(x)
        for part in reversed(list(path.modules())):
            if hasattr(part, 'switch_to_deploy'):
                part.switch_to_deploy()
        got = ExportGlobalPath(path, fixed, form='chunked', chunk=4)(x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [(6, 6), (7, 5), (2, 3)])
@pytest.mark.parametrize('bins', [1, 2, 3, (4, 6)])
def test_pooling(size, bins):
    x = torch.randn(2, 3, *size)
    wanted = torch.nn.AdaptiveAvgPool2d(bins)(x)
    torch.testing.assert_close(MatrixPool(bins, True)(x), wanted)


@pytest.mark.parametrize('fixed_count', [True, False])
def test_suppression_is_that_of_mmcv(fixed_count):
    torch.manual_seed(0)
    corner = torch.rand(2, 200, 2) * 50
    boxes = torch.cat((corner, corner + torch.rand(2, 200, 2) * 40), -1)
    scores, labels = torch.rand(2, 200), torch.randint(3, (2, 200))
    scores[1, 5:] = -1  # few boxes in the second picture
    got = suppress(boxes, scores, labels, 0.5, 0.1, 30, fixed_count)
    assert got[0].shape[1] == 30
    for i in range(2):
        there = scores[i] > 0.1
        dets, keep = batched_nms(
            boxes[i][there],
            scores[i][there],
            labels[i][there],
            dict(type='nms', iou_threshold=0.5),
        )
        count = min(30, len(keep))
        torch.testing.assert_close(got[0][i, :count], dets[:count, :4])
        torch.testing.assert_close(got[1][i, :count], dets[:count, 4])
        assert torch.equal(got[2][i, :count], labels[i][there][keep][:count])
        assert (got[2][i, count:] == -1).all()


def test_a_picture_without_boxes_has_one_empty_row():
    boxes, scores = torch.zeros(1, 4, 4), torch.zeros(1, 4)
    labels = torch.zeros(1, 4, dtype=torch.long)
    got = suppress(boxes, scores, labels, 0.5, 0.1, 3, False)
    assert got[2].tolist() == [[-1]]

"""An exported file computes what its model does, or is not there."""

import numpy as np
import onnx
import pytest
import torch

from mmmobilemamba.deploy.export import (
    ExportOptions,
    ParityError,
    export_model,
)
from mmmobilemamba.deploy.session import Session

KINDS = dict(
    classifier='classifier',
    segmentor='segmentor',
    pspnet='segmentor',
    retinanet='detector',
    ssd='detector',
    mask_rcnn='detector',
)


@pytest.fixture(scope='module')
def export(make_model, tmp_path_factory):
    """Give a function that exports a tiny model."""
    folder = tmp_path_factory.mktemp('exported')
    made = {}

    def call(name, kind=None, out=None, pictures=(), **options):
        options.setdefault('size', (96, 80))
        key = (name, kind, out, len(pictures), *sorted(options.items()))
        if key not in made:
            made[key] = export_model(
                make_model(name),
                kind or KINDS[name],
                folder / (out or f'{len(made)}.onnx'),
                ExportOptions(**options),
                pictures,
            )
        return made[key]

    return call


@pytest.fixture(scope='module')
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (70, 60, 3), np.uint8)
    return [('picture', pixels)]


def operators(path):
    model = onnx.load(path)
    return {(node.domain, node.op_type) for node in model.graph.node}


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_at_free_sizes(export, picture, name):
    report = export(name, dynamic_size=True, pictures=picture)
    assert [c.problems for c in report.comparisons] == [[]] * 4
    # Odd sizes and such that are no multiple of 64 are among them.
    assert len({c.size for c in report.comparisons}) == 3
    assert max(c.error for c in report.comparisons) <= 1e-4
    if KINDS[name] == 'detector':
        assert all(c.boxes for c in report.comparisons)
    assert {domain for domain, _ in operators(report.path)} == {''}


@pytest.mark.parametrize('name', ['retinanet', 'mask_rcnn'])
def test_detector_with_free_batch_and_preprocessing(export, picture, name):
    report = export(
        name,
        dynamic_batch=True,
        batch=2,
        preprocess=True,
        fixed_count=True,
        pictures=picture,
    )
    session = Session(report.path)
    for batch in (1, 3):
        image = np.zeros((batch, 3, 96, 80), np.uint8)
        assert session(image)['boxes'].shape[0] == batch
    # As many rows as the config keeps, those beyond marked.
    labels = session(image)['labels']
    assert labels.shape[1] == (20 if name == 'retinanet' else 8)


def test_labels_of_a_segmentor(export, picture):
    report = export('segmentor', argmax=True, pictures=picture)
    out = Session(report.path)(np.zeros((1, 3, 96, 80), np.float32))
    assert out['labels'].dtype == np.uint8
    assert out['labels'].shape == (1, 96, 80)


def test_backbone_gives_a_map_per_stage(export):
    report = export('segmentor', kind='backbone', size=(65, 97))
    out = Session(report.path)(np.zeros((1, 3, 65, 97), np.float32))
    shapes = [value.shape[1:] for value in out.values()]
    assert shapes == [(32, 5, 7), (40, 3, 4), (48, 2, 2)]


@pytest.mark.parametrize('opset', [17, 19, 21])
def test_opsets(export, opset):
    report = export('classifier', opset=opset)
    (written,) = onnx.load(report.path).opset_import
    assert (written.domain, written.version) == ('', opset)


@pytest.mark.parametrize(
    ('form', 'dynamic'),
    [('doubling', False), ('chunked', True), ('scan', True)],
)
def test_forms_of_the_scan(export, form, dynamic):
    report = export(
        'classifier',
        kind='backbone',
        form=form,
        dynamic_size=dynamic,
    )
    has_scan = ('', 'Scan') in operators(report.path)
    assert has_scan == dynamic


def test_unfused_form_leaves_the_model_as_it_is(export, make_model):
    model = make_model('classifier')
    before = {
        name: value.clone() for name, value in model.state_dict().items()
    }
    export('classifier', deploy=False)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mismatch_leaves_no_file(export):
    with pytest.raises(ParityError, match='scores differs') as caught:
        export('classifier', out='wrong/model.onnx', tolerance=1e-12)
    assert 'no file was written' in str(caught.value)
    path = export('classifier').path
    assert list((path.parent / 'wrong').iterdir()) == []


@pytest.mark.parametrize(
    ('options', 'kind', 'named'),
    [
        (dict(opset=16), 'classifier', '17 to 21'),
        (dict(opset=22), 'classifier', '17 to 21'),
        (dict(size=(31, 64)), 'classifier', '31x64'),
        (dict(batch=0), 'classifier', 'batch'),
        (dict(form='loop'), 'classifier', 'loop'),
        (dict(form='doubling', dynamic_size=True), 'classifier', 'doubling'),
        (dict(chunk=1), 'classifier', 'chunk'),
        (dict(tolerance=0), 'classifier', 'tolerance'),
        (dict(argmax=True), 'detector', 'argmax'),
        (dict(fixed_count=True), 'segmentor', 'fixed_count'),
    ],
)
def test_options_out_of_range(options, kind, named):
    with pytest.raises(ValueError, match=named):
        ExportOptions(**options).check(kind)


def test_pictures_that_a_file_does_not_take(export):
    session = Session(export('classifier').path)
    with pytest.raises(ValueError, match='exported for 96x80'):
        session(np.zeros((1, 3, 96, 96), np.float32))
    with pytest.raises(ValueError, match='--dynamic-batch'):
        session(np.zeros((2, 3, 96, 80), np.float32))
    free = Session(
        export('classifier', kind='backbone', dynamic_size=True).path
    )
    with pytest.raises(ValueError, match='32x32 and larger'):
        free(np.zeros((1, 3, 31, 80), np.float32))


def test_files_that_are_none_of_ours(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.onnx'):
        Session(tmp_path / 'none.onnx')
    (tmp_path / 'text.onnx').write_text('words')
    with pytest.raises(ValueError, match='text.onnx is no model'):
        Session(tmp_path / 'text.onnx')

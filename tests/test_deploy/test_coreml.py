"""Packages for CoreML have the structure of their model, or are not there."""

import json

import pytest

ct = pytest.importorskip(
    'coremltools', reason='coremltools is not installed', exc_type=ImportError
)

from mmmobilemamba.deploy import coreml_structure  # noqa: E402
from mmmobilemamba.deploy.coreml import export_coreml_model  # noqa: E402
from mmmobilemamba.deploy.options import ExportOptions  # noqa: E402

SIZE = (96, 80)
MAPS = {'map0': (1, 32, 6, 5), 'map1': (1, 40, 3, 3), 'map2': (1, 48, 2, 2)}


def convert(make_model, name, kind, path, precision='float32', **options):
    return export_coreml_model(
        make_model(name),
        kind,
        path / 'model.mlpackage',
        ExportOptions(size=SIZE, **options),
        precision,
    )


@pytest.mark.parametrize(
    ('name', 'kind', 'outputs'),
    [
        ('classifier', 'classifier', dict(scores=(1, 5))),
        ('segmentor', 'segmentor', dict(logits=(1, 4, *SIZE))),
        ('pspnet', 'segmentor', dict(logits=(1, 4, *SIZE))),
        ('retinanet', 'backbone', MAPS),
    ],
)
def test_structure(make_model, tmp_path, name, kind, outputs):
    report = convert(make_model, name, kind, tmp_path)
    assert report.inputs == dict(image=(1, 3, *SIZE))
    assert report.outputs == outputs
    assert report.operators['conv'] > 10
    # The file is what a Mac reads, so it is looked at by itself.
    spec = ct.utils.load_spec(str(report.path))
    assert [o.name for o in spec.description.output] == list(outputs)
    (block,) = spec.mlProgram.functions['main'].block_specializations.values()
    written = [op.type for op in block.operations]
    assert written.count('conv') == report.operators['conv']
    weights = report.path / 'Data/com.apple.CoreML/weights/weight.bin'
    assert weights.stat().st_size >= 4 * report.weights
    about = json.loads(spec.description.metadata.userDefined['mmmobilemamba'])
    assert about['kind'] == kind and about['size'] == list(SIZE)
    assert 'runs on a Mac only' in str(report)


def test_picture_and_labels_in_half_the_size(make_model, tmp_path):
    report = convert(
        make_model,
        'segmentor',
        'segmentor',
        tmp_path,
        'float16',
        preprocess=True,
        argmax=True,
    )
    assert report.outputs == dict(labels=(1, *SIZE))
    spec = ct.utils.load_spec(str(report.path))
    (image,) = spec.description.input
    colours = ct.proto.FeatureTypes_pb2.ImageFeatureType.ColorSpace
    assert image.type.imageType.colorSpace == colours.Value('BGR')
    weights = report.path / 'Data/com.apple.CoreML/weights/weight.bin'
    assert weights.stat().st_size < 3 * report.weights


def test_another_structure_leaves_no_package(
    make_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(coreml_structure, 'traced_weights', lambda _: 1)
    with pytest.raises(ValueError, match='numbers of weights'):
        convert(make_model, 'classifier', 'classifier', tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        (dict(kind='detector'), 'Detectors are not converted'),
        (dict(precision='int8'), 'precision must be one of'),
        (dict(dynamic_size=True), 'fixed in CoreML'),
        (dict(form='scan'), 'an operator of ONNX'),
        (dict(preprocess=True, batch=2), 'takes one picture'),
        (dict(size=(31, 64)), '31x64'),
        (dict(argmax=True), 'argmax is for a segmentor'),
    ],
)
def test_bad_input_is_named(tmp_path, changes, named):
    settings = dict(kind='classifier', precision='float32', size=SIZE)
    settings.update(changes)
    kind, precision = settings.pop('kind'), settings.pop('precision')
    out = tmp_path / 'model.mlpackage'
    with pytest.raises(ValueError, match=named):
        export_coreml_model(
            None, kind, out, ExportOptions(**settings), precision
        )


def test_package_that_is_there_stays(tmp_path):
    out = tmp_path / 'model.mlpackage'
    out.mkdir()
    with pytest.raises(FileExistsError, match='is there already'):
        export_coreml_model(None, 'classifier', out, ExportOptions(size=SIZE))
    with pytest.raises(ValueError, match='end in .mlpackage'):
        export_coreml_model(
            None, 'classifier', tmp_path / 'x.mlmodel', ExportOptions()
        )

"""Packages for CoreML are written whole, and say what is left to check."""

import json

import pytest

ct = pytest.importorskip(
    'coremltools', reason='coremltools is not installed', exc_type=ImportError
)

from mmmobilemamba.deploy.arguments import ExportOptions  # noqa: E402
from mmmobilemamba.deploy.coreml import export_coreml  # noqa: E402

SIZE = (96, 80)


@pytest.mark.parametrize(
    ('name', 'kind', 'outputs', 'preprocess'),
    [
        ('segmentor', 'segmentor', ['logits'], True),
        ('mask_rcnn', 'backbone', ['map0', 'map1', 'map2'], False),
    ],
)
def test_package(make_model, tmp_path, name, kind, outputs, preprocess):
    out = tmp_path / 'model.mlpackage'
    options = ExportOptions(size=SIZE, preprocess=preprocess)
    model = make_model(name)
    report = export_coreml(model, kind, out, options, 'float16')
    assert 'MLModel.predict' in report
    # The file is what a Mac reads, so it is looked at by itself.
    spec = ct.utils.load_spec(str(out))
    assert [o.name for o in spec.description.output] == outputs
    (image,) = spec.description.input
    assert image.type.WhichOneof('Type') == (
        'imageType' if preprocess else 'multiArrayType'
    )
    about = json.loads(spec.description.metadata.userDefined['mmmobilemamba'])
    assert about['kind'] == kind and about['size'] == list(SIZE)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_what_is_refused(make_model, tmp_path):
    options = ExportOptions(size=SIZE)
    model = make_model('retinanet')
    with pytest.raises(ValueError, match='Detectors are not converted'):
        export_coreml(model, 'detector', tmp_path / 'x.mlpackage', options)
    with pytest.raises(FileExistsError, match=tmp_path.name):
        export_coreml(model, 'backbone', tmp_path, options)

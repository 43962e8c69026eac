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
    options = ExportOptions(SIZE, preprocess=preprocess, precision='float16')
    model = make_model(name)
    assert 'MLModel.predict' in export_coreml(model, kind, out, options)
    # The file is what a Mac reads, so it is looked at by itself.
    spec = ct.utils.load_spec(str(out))
    assert [o.name for o in spec.description.output] == outputs
    kinds = {True: 'imageType', False: 'multiArrayType'}
    (image,) = spec.description.input
    assert image.type.WhichOneof('Type') == kinds[preprocess]
    about = json.loads(spec.description.metadata.userDefined['mmmobilemamba'])
    assert about['kind'] == kind and about['size'] == list(SIZE)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_detectors_are_refused(make_model, tmp_path):
    model, options = make_model('retinanet'), ExportOptions(SIZE)
    with pytest.raises(ValueError, match='--backbone'):
        export_coreml(model, 'detector', tmp_path / 'x.mlpackage', options)

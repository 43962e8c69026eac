"""The networks of the project are exported at their real sizes, and agree."""

import pytest
import torch

for library in ('mmdet', 'mmseg', 'mmpretrain', 'timm', 'onnxruntime'):
    pytest.importorskip(library)

from mmmobilemamba.apis.config import load_config  # noqa: E402
from mmmobilemamba.apis.inference import load_model  # noqa: E402
from mmmobilemamba.deploy import arguments  # noqa: E402
from mmmobilemamba.deploy.export import export_model  # noqa: E402

# Every network of the paper, and the peer of its own family.
SIZES = ('t2', 't4', 's6', 'b1', 'b2', 'b4')
HEADS = ('sem_fpn', 'deeplabv3', 'pspnet', 'segformer', 'upernet')
DETECTORS = ('ssd/*320px', 'ssd/*512px', 'retinanet/*', 'faster_rcnn/*')
CONFIGS = (
    *(f'cls/*/mobilemamba-{size}_*-300e_*' for size in SIZES),
    'cls/*/mambaout-femto*',
    *(f'det/{name}' for name in (*DETECTORS, 'mask_rcnn/*_mobilemamba-*')),
    *(f'seg/{name}/*_mobilemamba-*' for name in HEADS),
)


@pytest.mark.slow
@pytest.mark.parametrize('pattern', CONFIGS)
def test_config(repo, tmp_path, fill, pattern):
    (path,) = repo.glob(f'configs/{pattern}.py')
    cfg = load_config(path)
    kind, size = arguments.KINDS[cfg.default_scope], arguments.image_size(cfg)
    if size == (800, 1333):
        size = (800, 1344)  # as the padded image
    # Untrained heads give every class nearly the same low score.
    test_cfg = cfg.model.get('test_cfg') or {}
    test_cfg = test_cfg.get('rcnn', test_cfg)
    if 'score_thr' in test_cfg:
        test_cfg.score_thr = 1e-3
    torch.manual_seed(0)
    model = fill(load_model(cfg, None, 'cpu'), heads=())
    options = arguments.ExportOptions(size)
    comparisons = export_model(model, kind, tmp_path / 'model.onnx', options)
    print(path.stem, *comparisons, sep='\n')
    assert kind != 'detector' or all(c.boxes for c in comparisons)

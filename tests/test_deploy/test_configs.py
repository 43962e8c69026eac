"""The networks of the project are exported at their real sizes, and agree."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

pytest.importorskip('onnxruntime')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('timm')

from mmmobilemamba.apis.config import load_config  # noqa: E402
from mmmobilemamba.apis.inference import load_model  # noqa: E402
from mmmobilemamba.deploy.export import export_model  # noqa: E402
from mmmobilemamba.deploy.options import (  # noqa: E402
    ExportOptions,
    image_size,
    kind_of,
)

# Every network of the paper, and the peer of its own family.
CONFIGS = (
    *(
        f'cls/mobilemamba/mobilemamba-{name}_8xb128-300e_in1k-{side}px'
        for name, side in (
            ('t2', 192),
            ('t4', 192),
            ('s6', 224),
            ('b1', 256),
            ('b2', 384),
            ('b4', 512),
        )
    ),
    'cls/mambaout/mambaout-femto_8xb512-300e_in1k-224px',
    'det/ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-320px',
    'det/ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-512px',
    'det/retinanet/retinanet_mobilemamba-b1_fpn_1x_coco',
    'det/faster_rcnn/faster-rcnn_mobilemamba-b1_fpn_1x_coco',
    'det/mask_rcnn/mask-rcnn_mobilemamba-b1_fpn_1x_coco',
    'seg/sem_fpn/fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512',
    'seg/deeplabv3/deeplabv3_mobilemamba-b4_4xb8-80k_ade20k-512x512',
    'seg/pspnet/pspnet_mobilemamba-b4_4xb8-80k_ade20k-512x512',
    'seg/segformer/segformer_mobilemamba-b4_4xb8-160k_ade20k-512x512',
    'seg/upernet/upernet_mobilemamba-b4_4xb4-160k_ade20k-512x512',
)


@torch.no_grad()
def fill(model):
    """Let every branch count, and the backbone's values keep their scale."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        norm.momentum = 1.0
    model.train()
    getattr(model, 'backbone', model)(torch.randn(4, 3, 192, 192))
    model.eval()


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_config(repo, tmp_path, name):
    cfg = load_config(repo / 'configs' / f'{name}.py')
    kind, size = kind_of(cfg), image_size(cfg)
    if size == (800, 1333):
        size = (800, 1344)  # as the padded image
    # Untrained heads give every class nearly the same low score.
    test_cfg = cfg.model.get('test_cfg') or {}
    test_cfg = test_cfg.get('rcnn', test_cfg)
    if 'score_thr' in test_cfg:
        test_cfg.score_thr = 1e-3
    torch.manual_seed(0)
    model = load_model(cfg, None, 'cpu')
    fill(model)
    options = ExportOptions(size=size)
    out = tmp_path / 'model.onnx'
    comparisons = export_model(model, kind, out, options)
    print(name, *comparisons, sep='\n')
    assert [c.problems for c in comparisons] == [[]] * 3
    if kind == 'detector':
        assert all(c.boxes for c in comparisons)

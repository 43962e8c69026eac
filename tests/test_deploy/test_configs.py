"""The configs that the project ships can be exported, on small networks."""

import pytest
import torch

pytest.importorskip('onnxruntime')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('timm')

from mmmobilemamba.apis.config import load_config  # noqa: E402
from mmmobilemamba.apis.inference import build_model  # noqa: E402
from mmmobilemamba.deploy.export import export_model  # noqa: E402
from mmmobilemamba.deploy.options import (  # noqa: E402
    ExportOptions,
    kind_of,
)
from mmmobilemamba.deploy.survey import fill  # noqa: E402
from mmmobilemamba.models.backbones.arch import ARCH_SETTINGS  # noqa: E402

CONFIGS = dict(
    t2='cls/mobilemamba/mobilemamba-t2_8xb128-300e_in1k-192px',
    t4='cls/mobilemamba/mobilemamba-t4_8xb128-300e_in1k-192px',
    s6='cls/mobilemamba/mobilemamba-s6_8xb128-300e_in1k-224px',
    b1='cls/mobilemamba/mobilemamba-b1_8xb128-300e_in1k-256px',
    b2='cls/mobilemamba/mobilemamba-b2_8xb128-300e_in1k-384px',
    b4='cls/mobilemamba/mobilemamba-b4_8xb128-300e_in1k-512px',
    mambaout='cls/mambaout/mambaout-femto_8xb512-300e_in1k-224px',
    ssd='det/ssd/ssdlite_mobilemamba-b1_8xb24-600e_coco-512px',
    faster_rcnn='det/faster_rcnn/faster-rcnn_mobilemamba-b1_fpn_1x_coco',
    deeplabv3='seg/deeplabv3/deeplabv3_mobilemamba-b4_4xb8-80k_ade20k-512x512',
    segformer='seg/segformer/'
    'segformer_mobilemamba-b4_4xb8-160k_ade20k-512x512',
    upernet='seg/upernet/upernet_mobilemamba-b4_4xb4-160k_ade20k-512x512',
)
# A head's widths and lists; the backbone has a quarter of its own.
NARROW = {
    'channels': 16,
    'feat_channels': 16,
    'fc_out_channels': 16,
    'num_classes': 3,
    'nms_pre': 50,
    'max_per_img': 20,
}


def shrink(node, widths):
    """Replace the widths of the backbone wherever they are read."""
    for key, value in list(node.items()):
        if isinstance(value, dict):
            shrink(value, widths)
        elif key in NARROW:
            node[key] = NARROW[key]
        elif key in ('in_channels', 'out_channels'):
            several = isinstance(value, (list, tuple))
            old = value if several else [value]
            new = [widths.get(width, width) for width in old]
            node[key] = new if several else new[0]


def small_model(path, name):
    cfg = load_config(path)
    model = cfg.model
    if name == 'mambaout':
        model.update(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), num_classes=3)
    else:
        arch = dict(ARCH_SETTINGS[model.backbone.arch])
        wide = arch['channels']
        arch['channels'] = tuple(width // 32 * 8 for width in wide)
        shrink(model, dict(zip(wide, arch['channels'], strict=True)))
        model.backbone.arch = arch
    torch.manual_seed(0)
    return cfg, build_model(cfg).eval()


@pytest.mark.parametrize('name', CONFIGS)
def test_config(repo, tmp_path, name):
    path = repo / 'configs' / f'{CONFIGS[name]}.py'
    cfg, model = small_model(path, name)
    kind = kind_of(cfg)
    options = ExportOptions(size=(96, 128))
    fill(model, kind, options.size, seed=0)
    report = export_model(model, kind, tmp_path / 'model.onnx', options)
    assert [c.problems for c in report.comparisons] == [[]] * 3
    if kind == 'detector':
        assert all(c.boxes for c in report.comparisons)

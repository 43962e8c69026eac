"""Tiny models of every kind, filled so that each part of them matters."""

import textwrap

import pytest
import torch
from golden import made_tensor
from mmengine.config import Config

from mmmobilemamba.apis.inference import build_model

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

_BACKBONE = """dict(
    _delete_=True,
    type='mmmobilemamba.MobileMamba',
    arch=dict(
        channels=(32, 40, 48),
        depths=(1, 1, 1),
        global_ratios=(0.8, 0.0, 0.0)),
    out_indices=(0, 1, 2))"""
_TEXTS = dict(
    classifier="""
        default_scope = 'mmpretrain'
        model = dict(
            type='ImageClassifier',
            data_preprocessor=dict(
                num_classes=5,
                mean=[120., 110., 100.],
                std=[60., 61., 62.],
                to_rgb=True),
            backbone={last},
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='mmmobilemamba.BNLinearClsHead',
                num_classes=5,
                in_channels=48))
    """,
    segmentor="""
        _base_ = 'mmseg::_base_/models/fpn_r50.py'
        default_scope = 'mmseg'
        model = dict(
            backbone={backbone},
            neck=dict(in_channels=[32, 40, 48], out_channels=16, num_outs=3),
            decode_head=dict(
                in_channels=[16, 16, 16],
                in_index=[0, 1, 2],
                feature_strides=[16, 32, 64],
                channels=16,
                num_classes=4))
    """,
    retinanet="""
        _base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
        default_scope = 'mmdet'
        model = dict(
            backbone={backbone},
            neck=dict(
                _delete_=True,
                type='mmmobilemamba.DeconvFPN',
                in_channels=[32, 40, 48],
                out_channels=16,
                num_finer=1,
                num_coarser=1),
            bbox_head=dict(
                num_classes=3,
                in_channels=16,
                feat_channels=16,
                stacked_convs=1),
            test_cfg=dict(nms_pre=100, max_per_img=20))
    """,
    mask_rcnn="""
        _base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
        default_scope = 'mmdet'
        extractor = dict(out_channels=16, featmap_strides=[16, 32, 64])
        narrow = dict(in_channels=16, num_classes=3)
        model = dict(
            backbone={backbone},
            neck=dict(
                in_channels=[32, 40, 48], out_channels=16, num_outs=3),
            rpn_head=dict(
                in_channels=16,
                feat_channels=16,
                anchor_generator=dict(scales=[2], strides=[16, 32, 64])),
            roi_head=dict(
                bbox_roi_extractor=extractor,
                bbox_head=dict(**narrow, fc_out_channels=16),
                mask_roi_extractor=extractor,
                mask_head=dict(**narrow, num_convs=1, conv_out_channels=16)),
            test_cfg=dict(
                rpn=dict(nms_pre=50, max_per_img=20),
                rcnn=dict(max_per_img=8)))
    """,
)


def fill(model):
    """Give a model weights with which no branch computes nothing."""
    state = {}
    for name, value in model.state_dict().items():
        # names as golden.py knows them
        old = name.replace('A_log', 'A_logs').replace('dt_proj_', 'dt_projs_')
        made = value
        if 'backbone' in name or value.dim() == 0:
            made = made_tensor(old, list(value.shape)).to(value.dtype)
        elif name.endswith('weight') and value.dim() > 1:
            generator = torch.Generator().manual_seed(len(state))
            noise = torch.randn(value.shape, generator=generator)
            made = noise * value[0].numel() ** -0.5
        state[name] = made
    model.load_state_dict(state)
    return model.eval()


@pytest.fixture(scope='session')
def make_model(tmp_path_factory):
    """Give a function that builds a tiny model by its name."""
    folder = tmp_path_factory.mktemp('models')
    last = _BACKBONE.replace('(0, 1, 2)', '(2,)')
    last = last.replace('_delete_=True,', '')
    hosts = dict(classifier='mmpretrain', segmentor='mmseg')
    made = {}

    def make(name, **changes):
        pytest.importorskip(hosts.get(name, 'mmdet'))
        key = (name, *changes.items())
        if key not in made:
            path = folder / f'{name}.py'
            text = textwrap.dedent(_TEXTS[name])
            path.write_text(text.format(backbone=_BACKBONE, last=last))
            cfg = Config.fromfile(path)
            cfg.merge_from_dict(changes)
            made[key] = fill(build_model(cfg))
        return made[key]

    return make


@pytest.fixture(scope='session')
def export(make_model, tmp_path_factory):
    """Give a function that exports a tiny model, once for all tests."""
    from mmmobilemamba.deploy.export import export_model
    from mmmobilemamba.deploy.options import ExportOptions

    folder = tmp_path_factory.mktemp('exported')
    kinds = dict(classifier='classifier', segmentor='segmentor')
    made = {}

    def call(name, kind=None, **options):
        key = (name, kind, *sorted(options.items()))
        if key not in made:
            path = folder / f'{len(made)}.onnx'
            settings = ExportOptions(size=(96, 80), **options)
            kind = kind or kinds.get(name, 'detector')
            report = export_model(make_model(name), kind, path, settings)
            made[key] = path, report
        return made[key]

    return call

"""The hosts' inferencers take a config of ours by its name."""

import numpy as np
import pytest

from mmmobilemamba.apis.config import load_config

IMAGE = np.zeros((64, 96, 3), np.uint8)


@pytest.mark.parametrize(
    ('host', 'kind', 'name', 'options', 'found'),
    [
        (
            'mmdet',
            'DetInferencer',
            'retinanet_mobilemamba-b1_fpn_1x_coco',
            dict(show_progress=False),
            'predictions',
        ),
        (
            'mmseg',
            'MMSegInferencer',
            'fpn_mobilemamba-b4_4xb8-160k_ade20k-512x512',
            {},
            'predictions',
        ),
        (
            'mmpretrain',
            'ImageClassificationInferencer',
            'mobilemamba-t2_8xb128-300e_in1k-192px',
            dict(pretrained=False),
            'pred_label',
        ),
    ],
)
def test_name_of_a_config(host, kind, name, options, found):
    apis = pytest.importorskip(f'{host}.apis')
    cfg = load_config(name)
    inferencer = getattr(apis, kind)(cfg, device='cpu', **options)
    result = inferencer(IMAGE)
    result = result[0] if isinstance(result, list) else result
    assert found in result

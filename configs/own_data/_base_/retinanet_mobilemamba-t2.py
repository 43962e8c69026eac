_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

channels = 64

# A narrow head: 256 channels cost thirty times as much as the backbone.
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.PyramidBackbone',
        backbone=dict(type='mmmobilemamba.MobileMamba', arch='t2'),
        # The backbone gives strides 16, 32 and 64.
        neck=dict(
            type='mmmobilemamba.DeconvFPN',
            out_channels=channels,
            out_strides=(8, 16, 32, 64),
            norm_cfg=dict(type='BN'),
        ),
    ),
    neck=None,
    bbox_head=dict(
        in_channels=channels,
        feat_channels=channels,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=8),
        # Squares of octave_base_scale times the stride, and up to twice that:
        # 24 to 48 px on the finest level. Choose by the smallest objects.
        anchor_generator=dict(octave_base_scale=3, strides=[8, 16, 32, 64]),
    ),
)

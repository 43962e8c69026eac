_base_ = 'mmseg::_base_/models/fpn_r50.py'

channels = 64
norm_cfg = dict(type='BN')

model = dict(
    pretrained=None,
    # Where a batch is padded to; pixels beyond the picture do not count.
    data_preprocessor=dict(size=None, size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.PyramidBackbone',
        backbone=dict(type='mmmobilemamba.MobileMamba', arch='t2'),
        # The backbone gives strides 16, 32 and 64.
        neck=dict(
            type='mmmobilemamba.DeconvFPN',
            out_channels=channels,
            out_strides=(4, 8, 16, 32, 64),
            norm_cfg=norm_cfg,
        ),
    ),
    neck=None,
    decode_head=dict(
        in_channels=[channels] * 5,
        in_index=[0, 1, 2, 3, 4],
        feature_strides=[4, 8, 16, 32, 64],
        channels=channels,
        norm_cfg=norm_cfg,
    ),
)

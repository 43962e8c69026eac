_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

channels = 96
head_norm = dict(type='GN', num_groups=8)

# Heads narrower than the host's, as fits small data and a small backbone.
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.PyramidBackbone',
        backbone=dict(type='mmmobilemamba.MobileMamba', arch='t2'),
        # The backbone gives strides 16, 32 and 64.
        neck=dict(
            type='mmmobilemamba.DeconvFPN',
            out_channels=channels,
            out_strides=(4, 8, 16, 32, 64),
            norm_cfg=dict(type='BN'),
        ),
    ),
    neck=None,
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        # Convolutions with a norm learn the classes much sooner than two
        # fully connected layers do.
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=2,
            num_shared_fcs=1,
            in_channels=channels,
            conv_out_channels=channels,
            fc_out_channels=256,
            norm_cfg=head_norm,
        ),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            norm_cfg=head_norm,
        ),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=128))),
)

_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    './_base_/shapes_instance.py',
    './_base_/schedule.py',
]

# "nano" is no published variant: T2 in narrow, to learn from scratch on CPU.
nano = dict(channels=(128, 160, 192), depths=(2, 1, 1))
num_classes = 3
channels = 64
head_norm = dict(type='GN', num_groups=8)

model = dict(
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch=nano),
    # The backbone's finest stride is 16: two finer levels give 4 to 64.
    neck=dict(
        _delete_=True,
        type='mmmobilemamba.DeconvFPN',
        in_channels=nano['channels'],
        out_channels=channels,
        num_finer=2,
        norm_cfg=dict(type='BN'),
    ),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        # Sides of 24, 48, 96 px on the three finest levels.
        anchor_generator=dict(scales=[6]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1),
            out_channels=channels,
            finest_scale=28,
        ),
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
            num_classes=num_classes,
        ),
        mask_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1),
            out_channels=channels,
            finest_scale=28,
        ),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            norm_cfg=head_norm,
            num_classes=num_classes,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=100),
        rcnn=dict(sampler=dict(num=64, pos_fraction=0.4)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=500, max_per_img=100),
        rcnn=dict(max_per_img=20),
    ),
)

max_epochs = 4
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
)
log_processor = dict(window_size=10)

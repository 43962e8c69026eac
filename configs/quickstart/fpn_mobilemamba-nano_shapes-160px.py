_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/default_runtime.py',
    './_base_/shapes_semantic.py',
    './_base_/schedule.py',
]

# "nano" is no published variant: T2 in narrow, to learn from scratch on CPU.
nano = dict(channels=(128, 160, 192), depths=(2, 1, 1))
channels = 64
norm_cfg = dict(type='BN')

model = dict(
    pretrained=None,
    data_preprocessor=dict(size={{_base_.image_size}}),
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch=nano),
    # The backbone's finest stride is 16: two finer levels give 4 to 64.
    neck=dict(
        _delete_=True,
        type='mmmobilemamba.DeconvFPN',
        in_channels=nano['channels'],
        out_channels=channels,
        num_finer=2,
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        in_channels=[channels] * 5,
        in_index=[0, 1, 2, 3, 4],
        feature_strides=[4, 8, 16, 32, 64],
        channels=channels,
        num_classes=4,
        norm_cfg=norm_cfg,
    ),
)

max_epochs = 5
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
    logger=dict(type='LoggerHook', interval=10),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
)
log_processor = dict(window_size=10, by_epoch=True)

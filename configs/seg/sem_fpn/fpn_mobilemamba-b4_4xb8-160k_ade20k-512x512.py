_base_ = 'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'

# The published model starts from an ImageNet checkpoint; README.md says how
# to pass one. Without it the backbone starts from scratch.
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b4'),
    neck=dict(in_channels=[200, 376, 448], num_outs=3),
    decode_head=dict(
        in_channels=[256, 256, 256],
        in_index=[0, 1, 2],
        feature_strides=[16, 32, 64],
    ),
)

train_dataloader = dict(batch_size=8)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1.2e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(
        custom_keys=dict(
            # Hits the layer norm of the scan alone; BatchNorms are named bn.
            norm=dict(decay_mult=0.0),
            head=dict(lr_mult=10.0),
        )
    ),
)

max_iters = 160000
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=False,
        begin=max_iters // 2,
        end=max_iters,
        T_max=max_iters // 2,
    ),
]

# 4 GPUs x 8 images
auto_scale_lr = dict(enable=False, base_batch_size=32)

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

# The published model starts from an ImageNet checkpoint; README.md says how
# to pass one. Without it the backbone starts from scratch.
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.MobileMamba',
        arch='b1',
        norm_eval=True,
    ),
    # Strides 8 to 128: one level finer than the backbone's, one coarser.
    neck=dict(
        _delete_=True,
        type='mmmobilemamba.DeconvFPN',
        in_channels=[200, 376, 448],
        out_channels=256,
        num_finer=1,
        num_coarser=1,
    ),
)

train_dataloader = dict(batch_size=4, num_workers=4)

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='AdamW',
        lr=2e-4,
        betas=(0.9, 0.999),
        weight_decay=0.05,
    ),
    # Hits the layer norm of the scan alone; BatchNorms are named bn.
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)

max_epochs = 12
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=500),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        by_epoch=True,
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs // 2,
    ),
]

# 4 GPUs x 4 images
auto_scale_lr = dict(enable=False, base_batch_size=16)

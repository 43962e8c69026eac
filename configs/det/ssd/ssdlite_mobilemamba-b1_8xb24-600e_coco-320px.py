_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'

# The published model starts from an ImageNet checkpoint; README.md says how
# to pass one. Without it the backbone starts from scratch.
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.MobileMamba',
        arch='b1',
        # Stage 3 is built, as in the published file, but neither run nor
        # trained.
        out_indices=(0, 1),
        norm_eval=True,
    ),
    neck=dict(
        in_channels=(200, 376),
        out_channels=(200, 376, 512, 256, 256, 128),
    ),
    bbox_head=dict(
        # mmdet's own SSDHead cannot predict in version 3.3.
        type='mmmobilemamba.SSDHead',
        in_channels=(200, 376, 512, 256, 256, 128),
    ),
)

optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='AdamW',
        lr=2.4e-3,
        betas=(0.9, 0.999),
        weight_decay=0.05,
    ),
    # Hits the layer norm of the scan alone; BatchNorms are named bn.
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)

# Each epoch repeats the training set 5 times: 600 passes in all.
max_epochs = 120
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

# 8 GPUs x 24 images
auto_scale_lr = dict(enable=False, base_batch_size=192)

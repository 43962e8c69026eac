_base_ = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'

# The published model starts from an ImageNet checkpoint; README.md says how
# to pass one. Without it the backbone starts from scratch.
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b4'),
    decode_head=dict(in_channels=448, in_index=2, channels=256),
    auxiliary_head=dict(in_channels=376, in_index=1),
)

train_dataloader = dict(batch_size=8)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1.2e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    # Hits the layer norm of the scan alone; BatchNorms are named bn.
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)

max_iters = 80000
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=500),
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

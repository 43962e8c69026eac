_base_ = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'

# No published counterpart: SegFormer's all-MLP head on the three stages, with
# the training settings of ../sem_fpn so that the two heads compare.
model = dict(
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b4'),
    decode_head=dict(in_channels=[200, 376, 448], in_index=[0, 1, 2]),
)

train_dataloader = dict(batch_size=8, num_workers=4)

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

_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs128_poolformer_small_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmmobilemamba.MobileMamba', arch='b1', out_indices=(2,)
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmmobilemamba.BNLinearClsHead',
        num_classes=1000,
        in_channels=448,
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'
        ),
        topk=(1, 5),
    ),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
)

# The host's pipelines hold RandAugment m9 std 0.5 with increasing levels and
# random erasing p 0.25 by pixel. The recipe's colour jitter is not in them:
# timm, which wrote that recipe, switches it off beside RandAugment.
input_size = 256
train_pipeline = _base_.train_pipeline
train_pipeline[1] = dict(
    type='RandomChoice',
    transforms=[
        [
            dict(
                type='RandomResizedCrop',
                scale=input_size,
                backend='pillow',
                interpolation=interpolation,
            )
        ]
        for interpolation in ('bilinear', 'bicubic')
    ],
)
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = int(input_size / 0.875)  # ResizeEdge
test_pipeline[2]['crop_size'] = input_size  # CenterCrop

train_dataloader = dict(
    # Mixup pairs the images of a batch, BatchNorm needs more than one.
    drop_last=True,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(lr=3e-3),
    # No decay on 1-D parameters and biases; the scan's A_log and dt_proj_bias
    # and the scales of the two paths have more dimensions and do decay.
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
    ),
    clip_grad=dict(max_norm=5.0),
)

max_epochs = 300
warmup_epochs = 20
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        # Down to 3e-5, and less where the rate is scaled down.
        eta_min_ratio=1e-2,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        T_max=max_epochs - warmup_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)

# A checkpoint of weights, average and optimizer takes 270 MB.
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))

# The moving average, statistics of BatchNorm included, is what validation
# measures and what gave the published accuracies.
custom_hooks = [
    dict(
        type='EMAHook',
        momentum=2e-4,
        update_buffers=True,
        priority='ABOVE_NORMAL',
    ),
]

# 8 GPUs x 128 images
auto_scale_lr = dict(base_batch_size=1024)

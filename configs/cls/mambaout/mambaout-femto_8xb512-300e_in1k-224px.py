_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs128_poolformer_small_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]

# The whole network of timm, its MLP head included.
model = dict(
    type='TimmClassifier',
    model_name='mambaout_femto',
    num_classes=1000,
    drop_path_rate=0.025,
    loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
)

# The host's pipelines hold RandAugment m9 std 0.5 with increasing levels and
# random erasing p 0.25 by pixel. timm tests MambaOut on the whole short side.
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = 224  # ResizeEdge

train_dataloader = dict(
    batch_size=512,
    # Mixup pairs the images of a batch.
    drop_last=True,
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# Weight decay 0.05, none on norms and biases, comes from the base.
optim_wrapper = dict(optimizer=dict(lr=4e-3))

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
        eta_min=1e-5,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
        T_max=max_epochs - warmup_epochs,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)

# 8 GPUs x 512 images
auto_scale_lr = dict(base_batch_size=4096)

_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    'mmdet::retinanet/retinanet_tta.py',
    '../_base_/adamw_1x.py',
]

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

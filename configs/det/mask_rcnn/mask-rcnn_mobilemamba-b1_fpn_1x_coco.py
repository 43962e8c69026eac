_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
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
    # The backbone's finest stride is 16: two finer levels give 4 to 64.
    neck=dict(
        _delete_=True,
        type='mmmobilemamba.DeconvFPN',
        in_channels=[200, 376, 448],
        out_channels=256,
        num_finer=2,
    ),
)

train_dataloader = dict(batch_size=4, num_workers=4)

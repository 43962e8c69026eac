_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/adamw_160k.py',
]

data_preprocessor = dict(size=(512, 512))

# The published model starts from an ImageNet checkpoint; README.md says how
# to pass one. Without it the backbone starts from scratch.
model = dict(
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b4'),
    neck=dict(in_channels=[200, 376, 448], num_outs=3),
    decode_head=dict(
        num_classes=150,
        in_channels=[256, 256, 256],
        in_index=[0, 1, 2],
        feature_strides=[16, 32, 64],
    ),
)

train_dataloader = dict(batch_size=8)

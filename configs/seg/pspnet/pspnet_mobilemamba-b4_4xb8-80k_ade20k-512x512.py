_base_ = [
    'mmseg::_base_/models/pspnet_r50-d8.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/adamw_80k.py',
]

data_preprocessor = dict(size=(512, 512))

# The published model starts from an ImageNet checkpoint; README.md says how
# to pass one. Without it the backbone starts from scratch.
model = dict(
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b4'),
    decode_head=dict(
        num_classes=150, in_channels=448, in_index=2, channels=256
    ),
    auxiliary_head=dict(num_classes=150, in_channels=376, in_index=1),
)

train_dataloader = dict(batch_size=8)

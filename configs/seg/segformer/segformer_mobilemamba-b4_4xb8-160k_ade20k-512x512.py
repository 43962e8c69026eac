_base_ = [
    'mmseg::_base_/models/segformer_mit-b0.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/adamw_160k.py',
]

data_preprocessor = dict(size=(512, 512))

# No published counterpart: SegFormer's all-MLP head on the three stages, with
# the training settings of ../sem_fpn so that the two heads compare.
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b4'),
    decode_head=dict(
        num_classes=150, in_channels=[200, 376, 448], in_index=[0, 1, 2]
    ),
)

train_dataloader = dict(batch_size=8, num_workers=4)

# A stock classifier with another backbone: everything but the two entries
# below is mmpretrain's ResNet-50 config, its schedule included. The published
# recipe is in mobilemamba-b1_8xb128-300e_in1k-256px.py.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'

model = dict(
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b1'),
    head=dict(in_channels=448),
)

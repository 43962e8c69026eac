# A stock segmentor with another backbone: everything but the entries below is
# mmseg's ResNet-50 config, its SGD schedule included. The AdamW settings of
# ../sem_fpn suit the network better.
_base_ = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b4'),
    # Three stages where ResNet has four.
    decode_head=dict(in_channels=[200, 376, 448], in_index=[0, 1, 2]),
    auxiliary_head=dict(in_channels=376, in_index=1),
)

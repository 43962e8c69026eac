# Any network of timm in the place of MobileMamba, by the same recipe: only
# model_name changes, the neck takes channels and strides from the network.
_base_ = 'mask-rcnn_mobilemamba-b1_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.PyramidBackbone',
        backbone=dict(
            type='mmmobilemamba.TIMMBackbone',
            model_name='efficientvit_m5',
            norm_eval=True,
        ),
        neck=dict(
            type='mmmobilemamba.DeconvFPN',
            out_channels=256,
            out_strides=(4, 8, 16, 32, 64),
        ),
    ),
    neck=None,
)

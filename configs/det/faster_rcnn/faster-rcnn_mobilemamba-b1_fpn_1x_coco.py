# A stock detector with another backbone: everything but the two entries below
# is mmdet's ResNet-50 config, its SGD schedule included. The AdamW settings
# of ../mask_rcnn suit the network better.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(_delete_=True, type='mmmobilemamba.MobileMamba', arch='b1'),
    # mmdet's FPN would begin at stride 16; this one keeps 4 to 64, so that
    # anchors and RoI extractors stay as they are.
    neck=dict(
        _delete_=True,
        type='mmmobilemamba.DeconvFPN',
        in_channels=[200, 376, 448],
        out_channels=256,
        num_finer=2,
    ),
)

# The recipe of MobileMamba, so that the two can be compared.
_base_ = 'mask-rcnn_mobilemamba-b1_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.TIMMBackbone',
        model_name='mambaout_tiny',
        drop_path_rate=0.2,
    ),
    # Strides 4 to 32, so the host's own FPN serves.
    neck=dict(
        _delete_=True,
        type='FPN',
        in_channels=[96, 192, 384, 576],
        out_channels=256,
        num_outs=5,
    ),
)

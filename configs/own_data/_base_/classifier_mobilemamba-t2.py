model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='mmmobilemamba.MobileMamba', arch='t2', out_indices=(2,)
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='mmmobilemamba.BNLinearClsHead',
        in_channels=368,
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'
        ),
    ),
)

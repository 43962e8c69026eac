# The host's recipe for Swin-T: AdamW with a linear decay.
_base_ = (
    'mmseg::swin/'
    'swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
)

# Without a checkpoint the backbone starts from scratch; README.md says how to
# pass one.
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.TIMMBackbone',
        model_name='mambaout_tiny',
        drop_path_rate=0.2,
    ),
    decode_head=dict(in_channels=[96, 192, 384, 576]),
    auxiliary_head=dict(in_channels=384),
)

# 8 GPUs x 2 images
auto_scale_lr = dict(enable=False, base_batch_size=16)

# Another picture size and a schedule of minutes on a CPU core, in which
# tools/misc/compare_backbones.py compares backbones.
_base_ = './fpn_mobilemamba-t2_label-images-240px.py'

image_size = (192, 144)
train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = image_size  # RandomResize
train_pipeline[3]['crop_size'] = (128, 160)  # RandomCrop
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = image_size  # Resize

# Beside a step on one core pictures load in no time.
in_process = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **in_process)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **in_process)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=8, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1))

# Another picture size and a schedule of minutes on a CPU core, in which
# tools/misc/compare_backbones.py compares backbones.
_base_ = './retinanet_mobilemamba-t2_voc-320px.py'

image_size = (192, 144)
train_pipeline = _base_.train_pipeline
train_pipeline[2]['scale'] = image_size  # RandomResize
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = image_size  # Resize

# Platelets are 12 px wide now: anchors from 16 px.
model = dict(bbox_head=dict(anchor_generator=dict(octave_base_scale=2)))
# Beside a step on one core pictures load in no time.
in_process = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **in_process)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **in_process)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline), **in_process)
train_cfg = dict(max_epochs=4, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=1))

_base_ = './mobilemamba-b1_8xb128-300e_in1k-256px.py'

model = dict(backbone=dict(arch='s6'))

input_size = 224
train_pipeline = _base_.train_pipeline
train_pipeline[1]['transforms'][0][0]['scale'] = input_size  # bilinear
train_pipeline[1]['transforms'][1][0]['scale'] = input_size  # bicubic
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = int(input_size / 0.875)  # ResizeEdge
test_pipeline[2]['crop_size'] = input_size  # CenterCrop

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

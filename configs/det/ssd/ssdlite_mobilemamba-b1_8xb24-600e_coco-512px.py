_base_ = './ssdlite_mobilemamba-b1_8xb24-600e_coco-320px.py'

# The anchors keep the 320 px setting, as published.
input_size = 512
train_pipeline = _base_.train_pipeline
train_pipeline[4]['scale'] = (input_size, input_size)  # Resize
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = (input_size, input_size)  # Resize

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

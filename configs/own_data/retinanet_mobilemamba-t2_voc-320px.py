# Boxes in Pascal VOC's form. Copy this file beside it, name your data and
# classes, and train.
_base_ = [
    './_base_/retinanet_mobilemamba-t2.py',
    './_base_/voc_boxes.py',
    './_base_/scratch_schedule.py',
]

data_root = 'data/bccd/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
data = dict(data_root=data_root, metainfo=metainfo)
lists = 'ImageSets/Main/'

model = dict(bbox_head=dict(num_classes=3))
train_dataloader = dict(dataset=dict(**data, ann_file=lists + 'train.txt'))
val_dataloader = dict(dataset=dict(**data, ann_file=lists + 'val.txt'))
test_dataloader = dict(dataset=dict(**data, ann_file=lists + 'test.txt'))

# Boxes and masks in COCO's form. Copy this file beside it, name your data and
# classes, and train. tools/dataset_converters/split_coco.py makes two files
# of one.
_base_ = [
    './_base_/mask-rcnn_mobilemamba-t2.py',
    './_base_/coco_masks.py',
    './_base_/scratch_schedule.py',
]

data_root = 'data/fruit_nuts/'
metainfo = dict(classes=('date', 'fig', 'hazelnut'))
data = dict(
    data_root=data_root, metainfo=metainfo, data_prefix=dict(img='images/')
)

model = dict(
    roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=3))
)
train_dataloader = dict(dataset=dict(**data, ann_file='train.json'))
val_dataloader = dict(dataset=dict(**data, ann_file='val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'val.json')
test_evaluator = val_evaluator

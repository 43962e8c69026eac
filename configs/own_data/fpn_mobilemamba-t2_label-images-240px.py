# Segmentation from label images. Copy this file beside it, name your data and
# classes, and train.
_base_ = [
    './_base_/fpn_mobilemamba-t2.py',
    './_base_/label_images.py',
    './_base_/scratch_schedule.py',
]

metainfo = dict(
    classes=(
        *('sky', 'building', 'pole', 'road', 'pavement', 'tree'),
        *('sign symbol', 'fence', 'car', 'pedestrian', 'bicyclist'),
    )
)
void = 11  # pixels of this value count nowhere; class 0 does
data = dict(data_root='data/camvid/', metainfo=metainfo)
train_folders = dict(img_path='images/train', seg_map_path='labels/train')
val_folders = dict(img_path='images/test', seg_map_path='labels/test')

model = dict(
    data_preprocessor=dict(seg_pad_val=void),
    decode_head=dict(num_classes=11, ignore_index=void),
)
train_dataloader = dict(dataset=dict(**data, data_prefix=train_folders))
val_dataloader = dict(dataset=dict(**data, data_prefix=val_folders))
test_dataloader = val_dataloader
val_evaluator = dict(ignore_index=void)
test_evaluator = val_evaluator

# The recipe on ImageNet as tools/dataset_converters/imagenet_to_lmdb.py packs
# it; any other config reads it with the same lines.
_base_ = './mobilemamba-b1_8xb128-300e_in1k-256px.py'

data_root = 'data/imagenet_lmdb'

train_pipeline = _base_.train_pipeline
train_pipeline[0]['backend_args'] = dict(
    backend='lmdb', db_path=f'{data_root}/train.lmdb'
)
test_pipeline = _base_.test_pipeline
test_pipeline[0]['backend_args'] = dict(
    backend='lmdb', db_path=f'{data_root}/val.lmdb'
)

# Without root and prefix the lines of the lists are the keys of the images.
train_dataloader = dict(
    dataset=dict(
        data_root='',
        split='',
        ann_file=f'{data_root}/meta/train.txt',
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root='',
        split='',
        ann_file=f'{data_root}/meta/val.txt',
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader

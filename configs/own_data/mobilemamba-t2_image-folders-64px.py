# Classification of folders of pictures. Copy this file beside it, name your
# data and classes, and train.
_base_ = [
    './_base_/classifier_mobilemamba-t2.py',
    './_base_/scratch_schedule.py',
    './_base_/image_folders.py',
]

# A folder of this name for each, below train and test.
metainfo = dict(
    classes=(
        *('airplane', 'automobile', 'bird', 'cat', 'deer'),
        *('dog', 'frog', 'horse', 'ship', 'truck'),
    )
)
data = dict(data_root='data/cifar10', metainfo=metainfo)

model = dict(data_preprocessor=dict(num_classes=10), head=dict(num_classes=10))
train_dataloader = dict(dataset=dict(**data, data_prefix='train'))
val_dataloader = dict(dataset=dict(**data, data_prefix='test'))
test_dataloader = val_dataloader

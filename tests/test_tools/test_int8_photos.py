"""int8 keeps what a network learned on photos, where they are at hand."""

import re

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('onnxruntime')
pytest.importorskip('mmpretrain')

from mmengine.config import Config  # noqa: E402

from mmmobilemamba.apis.inference import build_model, find_images, read_image  # noqa: E402
from mmmobilemamba.deploy.networks import (  # noqa: E402
    Preprocess,
    preprocess_settings,
)

CLASSES = ('airplane', 'frog')
SIDE = 32
CONFIG = """
_base_ = {base!r}
metainfo = dict(classes={classes})
model = dict(
    data_preprocessor=dict(num_classes=2),
    backbone=dict(
        _delete_=True,
        type='mmmobilemamba.MobileMamba',
        arch=dict(channels=(32, 40, 48), depths=(1, 1, 1)),
        out_indices=(2,)),
    head=dict(num_classes=2, in_channels=48))
image_size = {side}
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = image_size
test_pipeline[2]['crop_size'] = image_size
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root={data!r}, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
"""


@pytest.fixture(scope='module')
def photos(shared_folder, tmp_path_factory):
    """Two classes of photos, as links."""
    source = shared_folder / 'data' / 'cifar10_sub'
    if not source.is_dir():
        pytest.skip('no photos beside the checkout')
    folder = tmp_path_factory.mktemp('photos')
    for split in ('train', 'test'):
        (folder / split).mkdir()
        for name in CLASSES:
            (folder / split / name).symlink_to(source / split / name)
    return folder


def train(cfg, photos):
    """Train for half a minute of one core."""
    torch.manual_seed(0)
    model = build_model(cfg)
    preprocess = Preprocess(preprocess_settings(model))
    pictures, labels = [], []
    for label, name in enumerate(CLASSES):
        for path in find_images(photos / 'train' / name):
            pixels = torch.from_numpy(read_image(path))
            pictures.append(pixels.permute(2, 0, 1))
            labels.append(label)
    x, y = preprocess(torch.stack(pictures)), torch.tensor(labels)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            scores = model(x[rows], mode='tensor')
            F.cross_entropy(scores, y[rows]).backward()
            optimizer.step()
    return model.eval()


def test_classifier_of_photos(photos, repo, tool, tmp_path, capsys):
    base = repo / 'configs/own_data/mobilemamba-t2_image-folders-64px.py'
    config = tmp_path / 'config.py'
    config.write_text(
        CONFIG.format(
            base=str(base), classes=CLASSES, side=SIDE, data=str(photos)
        )
    )
    model = train(Config.fromfile(config), photos)
    weights = tmp_path / 'weights.pth'
    torch.save(dict(meta={}, state_dict=model.state_dict()), weights)
    exported, smaller = tmp_path / 'float.onnx', tmp_path / 'int8.onnx'
    paths = list(map(str, (config, weights, exported)))
    pictures = str(photos / 'test' / CLASSES[0])
    tool('deploy/export_onnx').main(
        [*paths, '--preprocess', '--images', pictures]
    )
    assert 'relative error' in capsys.readouterr().out
    paths = list(map(str, (config, exported, smaller, photos / 'train')))
    tool('deploy/quantize_onnx').main(
        [*paths, '--count', '32', '--max-loss', '3']
    )
    report = capsys.readouterr().out
    found = re.search(r'accuracy/top1: (\S+) -> (\S+) ', report)
    before, after = map(float, found.groups())
    assert before > 70
    assert after > before - 3
    assert 'latency: ' in report and 'size: ' in report
    assert smaller.stat().st_size < 0.8 * exported.stat().st_size

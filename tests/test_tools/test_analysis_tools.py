"""Counting, timing, drawing and comparing by command."""

import cv2
import pytest

from mmmobilemamba.analysis.benchmark_report import PAPER_MODELS
from mmmobilemamba.analysis.networks import parse_network

for library in ('mmdet', 'mmseg', 'mmpretrain', 'timm'):
    pytest.importorskip(library)

PEER = 'timm:test_efficientnet@64'
IMAGE = 'shapes/images/val/000000.png'
CPU = ('--device', 'cpu')
QUICK = (*CPU, '--rounds', '1', '--warmup', '1', '--batch-sizes', '1')


@pytest.fixture
def call(tool, capsys, monkeypatch, workspace, tmp_path):
    """Give a function that runs a tool here and returns what it says."""
    monkeypatch.chdir(tmp_path)
    for name in ('shapes', 'det.py', 'seg.py', 'cls.py'):
        (tmp_path / name).symlink_to(workspace / name)

    def run(name, *args):
        capsys.readouterr()
        try:
            tool(f'analysis_tools/{name}').main(args)
        except SystemExit as ended:
            assert ended.code == 2
            return capsys.readouterr().err
        return capsys.readouterr().out

    return run


def shown(path):
    """Check an image that a tool has written, alone in its folder."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert cv2.imread(str(path)).std() > 10


def test_images_of_one_channel(call, workspace, tmp_path):
    for name, kind in (('grey', 'grayscale'), ('rgb', 'color')):
        (tmp_path / f'{name}.py').write_text(f"""
_base_ = '{workspace}/seg.py'
load = dict(type='LoadImageFromFile', color_type='{kind}')
test_pipeline = [load, dict(type='PackSegInputs')]
model = dict(
    backbone=dict(in_channels=1),
    data_preprocessor=dict(mean=[128.0], std=[64.0], bgr_to_rgb=False))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
""")
    more = ('--shape', '64', '96', '--table', '1', '--deploy')
    said = call('get_flops', 'grey.py', *more)
    assert '64 x 96' in said and 'backbone' in said and 'MACs' in said
    assert '| grey |' in call('benchmark', 'grey.py@64', *QUICK)
    more = ('--size', '64', '--num-images', '1', *CPU)
    assert '| 64 |' in call('erf', 'grey.py', '--out', 'a/erf.png', *more)
    shown(tmp_path / 'a/erf.png')
    assert 'RGB' in call('erf', 'grey.py', *more, '--images', IMAGE)
    call('vis_cam', IMAGE, 'grey.py', '--out', 'b/cam.png', *CPU)
    shown(tmp_path / 'b/cam.png')
    assert 'channels' in call('vis_cam', IMAGE, 'rgb.py', *CPU)


def test_benchmark(call, tmp_path):
    args = ['t2@64', PEER, 't2', '--baseline', PEER, *QUICK, '2']
    said = call('benchmark', *args, '--out-dir', 'new')
    header, _, ours, peer, published, *_ = said.splitlines()
    assert '| batch 1, ms | times test_efficientnet | batch 2, img' in header
    assert '| 64 | 8.8 M |' in ours and '| 73.6 |' in published
    assert peer.count('| 1.00 |') == 2  # beside itself
    assert '--out-dir new' in (tmp_path / 'new/benchmark.json').read_text()
    assert said in (tmp_path / 'new/benchmark.md').read_text()
    assert cv2.imread('new/benchmark.png').std() > 10
    assert 'new' in call('benchmark', *args, '--out-dir', 'new')


def test_benchmark_of_whole_models(call):
    said = call('benchmark', 'det.py@64x96', 'seg.py@64', *QUICK)
    assert '| det | 64x96 |' in said and '| seg | 64 |' in said
    assert 'training' in call('benchmark', PEER, '--train', *QUICK, '2')
    assert 'convolution' in call('benchmark', PEER, '--breakdown', *QUICK)


def test_paper_table_lists_peers_that_exist():
    assert all(map(parse_network, PAPER_MODELS))


def test_erf(call, tmp_path):
    more = ('--size', '64', '--images', IMAGE, '--out', 'a/erf.png', *CPU)
    said = call('erf', 'seg.py', 't2', '--names', 'first', 'second', *more)
    assert '| second, random weights | 64 |' in said
    shown(tmp_path / 'a/erf.png')


@pytest.mark.parametrize(
    'args, said',
    [
        ('erf seg.py --size 64 --out a.txt', 'txt'),
        ('erf seg.py --names a b', '--names'),
        ('erf seg.py --stages 3 --size 64', 'Stage 3'),
        ('erf t2@31 --size 64', '31x31'),
        ('erf t2 t2 --size 64', '--names'),
        (f'benchmark t2 --baseline {PEER}', 'test_efficientnet'),
        ('benchmark t2,cuda_graph=yes --device cpu', '--device cuda'),
        ('benchmark t2,deploy=maybe', 'yes, no'),
        ('vis_cam seg.py seg.py', 'seg.py'),
        (f'vis_cam {IMAGE} seg.py@64', 'seg.py@64'),
        ('analyze_logs gone', 'gone'),
    ],
)
def test_what_is_refused(call, args, said):
    assert said in call(*args.split())


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_vis_cam(call, tmp_path, name):
    said = call('vis_cam', IMAGE, f'{name}.py', '--out', 'a/cam.png', *CPU)
    assert 'random weights' in said
    shown(tmp_path / 'a/cam.png')


def test_analyze_logs(call, tmp_path):
    folder = tmp_path / 'run/20260101_100000/vis_data'
    folder.mkdir(parents=True)
    lines = '{"loss": 2, "epoch": 1, "iter": 5, "step": 5}\n'
    lines += '{"coco/bbox_mAP": 0.25, "step": 1}\n'
    (folder / 'scalars.json').write_text(lines)
    more = ('--out', 'figures/curves.png', '--table', 'a.md')
    said = call('analyze_logs', 'run', 'run', *more)
    assert '| coco/bbox_mAP | 0.25 | 0.25 |' in said
    assert said.startswith((tmp_path / 'a.md').read_text())
    shown(tmp_path / 'figures/curves.png')
    assert 'mIoU' in call('analyze_logs', 'run', '--keys', 'mIoU')
    assert 'suffix' in call('analyze_logs', 'run', '--out', 'figures')
    (folder / 'scalars.json').write_text('\0\0\n')
    assert 'scalars.json' in call('analyze_logs', 'run')

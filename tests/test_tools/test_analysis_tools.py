"""Counting, timing, drawing and comparing by command."""

import json

import cv2
import pytest

for library in ('mmdet', 'mmseg', 'mmpretrain', 'timm'):
    pytest.importorskip(library)

PEER = 'timm:test_efficientnet@64'
CPU = ('--device', 'cpu')
QUICK = (*CPU, '--rounds', 2, '--warmup', 1, '--batch-sizes', 1)


@pytest.fixture
def call(tool, capsys, monkeypatch, workspace, tmp_path):
    """Give a function that runs a tool here and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    for name in ('shapes', 'colours', 'det.py', 'seg.py', 'cls.py'):
        (tmp_path / name).symlink_to(workspace / name)

    def run(name, *args, fails=False):
        capsys.readouterr()
        main = tool(f'analysis_tools/{name}').main
        if not fails:
            main([str(arg) for arg in args])
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        assert ended.value.code == 2
        return capsys.readouterr().err

    return run


def shown(path):
    """Check an image that a tool has written, alone in its folder."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    image = cv2.imread(str(path))
    assert image is not None and image.std() > 10


def test_get_flops(call):
    more = ('--table', 1, '--deploy')
    said = call('get_flops', 'det.py', '--shape', 96, 128, *more)
    assert '96 x 128' in said and 'MACs' in said
    assert 'backbone' in said and 'not counted' in said


def test_images_of_one_channel(call, workspace, tmp_path):
    (tmp_path / 'grey.py').write_text(f"""
_base_ = '{workspace}/seg.py'
load = dict(type='LoadImageFromFile', color_type='grayscale')
test_pipeline = [load, dict(type='PackSegInputs')]
model = dict(
    backbone=dict(in_channels=1),
    data_preprocessor=dict(mean=[128.0], std=[64.0], bgr_to_rgb=False))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
""")
    image = sorted((workspace / 'shapes/images/val').iterdir())[0]
    assert 'MACs' in call('get_flops', 'grey.py', '--shape', 64, 64)
    assert '| grey |' in call('benchmark', 'grey.py@64', *QUICK)
    more = ('--size', 64, '--num-images', 1, *CPU)
    assert '| 64 |' in call('erf', 'grey.py', '--out', 'a/erf.png', *more)
    shown(tmp_path / 'a/erf.png')
    said = call('erf', 'grey.py', *more, '--images', image, fails=True)
    assert 'RGB' in said and 'MobileMamba' in said
    call('vis_cam', image, 'grey.py', '--out', 'b/cam.png', *CPU)
    shown(tmp_path / 'b/cam.png')


def test_benchmark(call, tmp_path):
    args = ['t2@64', PEER, 't2', '--baseline', PEER, *QUICK, 2]
    said = call('benchmark', *args, '--out-dir', 'new')
    header, _, *rows = said.splitlines()
    assert '| batch 1, ms | times test_efficientnet | batch 2, img' in header
    assert '| 64 | 8.8 M |' in rows[0] and '| 73.6 |' in rows[2]
    assert rows[1].count('| 1.00 |') == 2  # beside itself
    report = json.loads((tmp_path / 'new/benchmark.json').read_text())
    assert report['command'].endswith('--out-dir new')
    assert said in (tmp_path / 'new/benchmark.md').read_text()
    assert cv2.imread(str(tmp_path / 'new/benchmark.png')).std() > 10
    said = call('benchmark', *args, '--out-dir', 'new', fails=True)
    assert 'new' in said


def test_benchmark_of_whole_models(call):
    said = call('benchmark', 'det.py@64x96', 'seg.py@64', *QUICK)
    assert '| det | 64x96 |' in said and '| seg | 64 |' in said
    assert 'training' in call('benchmark', PEER, '--train', *QUICK, 2)
    assert 'convolution' in call('benchmark', PEER, '--breakdown', *QUICK)


def test_paper_table_lists_peers_that_exist():
    from mmmobilemamba.analysis.benchmark_report import PAPER_MODELS
    from mmmobilemamba.analysis.networks import parse_network

    for text in PAPER_MODELS:
        parse_network(text)


def test_erf(call, tmp_path):
    path = tmp_path / 'figures/erf.png'
    said = call(
        *('erf', 'seg.py', 't2', '--names', 'first', 'second'),
        *('--stages', -1, '--size', 64, '--num-images', 2, '--out', path),
        *('--images', 'colours/blue', *CPU),
    )
    assert '| first, random weights | 64 |' in said
    assert '| second, random weights | 64 |' in said
    shown(path)


@pytest.mark.parametrize(
    'args, said',
    [
        (['erf', 'seg.py', '--size', 64, '--out', 'a.txt'], 'txt'),
        (['erf', 'seg.py', '--names', 'a', 'b'], '--names'),
        (['erf', 'seg.py', '--stages', 3, '--size', 64], 'Stage 3'),
        (['benchmark', 't2', '--baseline', PEER], 'test_efficientnet'),
        (['benchmark', 't2,cuda_graph=yes', *CPU], '--device cuda'),
        (['benchmark', 't2,deploy=maybe', *CPU], 'yes, no'),
        (['vis_cam', 'seg.py', 'seg.py'], 'seg.py'),
        (['analyze_logs', 'gone'], 'gone'),
    ],
)
def test_what_is_refused(call, args, said):
    assert said in call(*args, fails=True)


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_vis_cam(call, workspace, tmp_path, name):
    image = sorted((workspace / 'shapes/images/val').iterdir())[0]
    path = tmp_path / 'figures' / f'{name}.png'
    said = call('vis_cam', image, f'{name}.py', '--out', path, *CPU)
    assert 'random weights' in said
    shown(path)


def test_analyze_logs(call, tmp_path):
    for run in ('a', 'b'):
        folder = tmp_path / run / '20260101_100000' / 'vis_data'
        folder.mkdir(parents=True)
        lines = '{"loss": 2, "epoch": 1, "iter": 5, "step": 5}\n'
        lines += '{"coco/bbox_mAP": 0.25, "step": 1}\n'
        (folder / 'scalars.json').write_text(lines)
    path = tmp_path / 'figures/curves.png'
    said = call('analyze_logs', 'a', 'b', '--out', path, '--table', 'a.md')
    assert '| coco/bbox_mAP | 0.25 | 0.25 |' in said
    table = (tmp_path / 'a.md').read_text()
    assert table == said.partition('\n\n')[0] + '\n'
    shown(path)
    said = call('analyze_logs', 'a', 'b', '--keys', 'mIoU', fails=True)
    assert 'mIoU' in said and 'coco/bbox_mAP' in said

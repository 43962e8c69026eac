"""Counting, timing, drawing and comparing by command."""

import json

import cv2
import pytest

for library in ('mmdet', 'mmseg', 'mmpretrain', 'timm'):
    pytest.importorskip(library)

PEER = 'timm:test_efficientnet@64'
QUICK = ('--device', 'cpu', '--rounds', 2, '--warmup', 1, '--batch-sizes', 1)


@pytest.fixture
def call(tool, capsys, monkeypatch, tmp_path):
    """Give a function that runs a tool here and returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(name, *args):
        capsys.readouterr()
        tool(f'analysis_tools/{name}').main([str(arg) for arg in args])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refuse(call, capsys):
    """Give a function that runs a tool and returns its complaint."""

    def run(*args):
        with pytest.raises(SystemExit) as ended:
            call(*args)
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert 'Traceback' not in said
        return said

    return run


def shown(path):
    """Check an image that a tool has written, alone in its folder."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    image = cv2.imread(str(path))
    assert image is not None and image.std() > 10


def test_get_flops(call, workspace):
    config, more = workspace / 'det.py', ('--table', 1, '--deploy')
    said = call('get_flops', config, '--shape', 96, 128, *more)
    assert '96 x 128' in said and 'MACs' in said
    assert 'backbone' in said and 'not counted' in said


def test_images_of_one_channel(call, refuse, workspace, tmp_path):
    grey = tmp_path / 'grey.py'
    grey.write_text(f"""
_base_ = '{workspace}/seg.py'
load = dict(type='LoadImageFromFile', color_type='grayscale')
test_pipeline = [load, dict(type='PackSegInputs')]
model = dict(
    backbone=dict(in_channels=1),
    data_preprocessor=dict(mean=[128.0], std=[64.0], bgr_to_rgb=False))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
""")
    image = sorted((workspace / 'shapes/images/val').iterdir())[0]
    assert 'MACs' in call('get_flops', grey, '--shape', 64)
    assert '| grey |' in call('benchmark', f'{grey}@64', *QUICK)
    more = ('--size', 64, '--num-images', 1, '--device', 'cpu')
    assert '| 64 |' in call('erf', grey, '--out', 'a/erf.png', *more)
    shown(tmp_path / 'a/erf.png')
    said = refuse('erf', grey, *more, '--images', image)
    assert 'RGB' in said and 'MobileMamba' in said
    call('vis_cam', image, grey, '--out', 'b/cam.png', '--device', 'cpu')
    shown(tmp_path / 'b/cam.png')


def test_benchmark(call, refuse, tmp_path):
    args = ['t2@64', PEER, 't2', '--baseline', PEER, *QUICK]
    said = call('benchmark', *args, 2, '--out-dir', 'new')
    assert '| batch 1, ms | batch 2, img/s |' in said.splitlines()[0]
    assert '| 64 | 8.8 M |' in said and '| 73.6 |' in said
    assert '| MobileMamba-T2 | test_efficientnet |' in said
    report = json.loads((tmp_path / 'new/benchmark.json').read_text())
    assert report['command'].endswith('--out-dir new')
    assert said in (tmp_path / 'new/benchmark.md').read_text()
    assert cv2.imread(str(tmp_path / 'new/benchmark.png')).std() > 10
    assert '--overwrite' in refuse('benchmark', *args, '--out-dir', 'new')


def test_benchmark_of_whole_models(call, workspace):
    names = [f'{workspace}/det.py@64x96', f'{workspace}/seg.py@64']
    said = call('benchmark', *names, *QUICK)
    assert '| det | 64x96 |' in said and '| seg | 64 |' in said
    assert 'training' in call('benchmark', PEER, '--train', *QUICK, 2)
    assert 'convolution' in call('benchmark', PEER, '--breakdown', *QUICK)


def test_paper_table_lists_peers_that_exist():
    from mmmobilemamba.analysis import benchmark_report as report
    from mmmobilemamba.analysis.networks import parse_network

    for text in report.PAPER_MODELS:
        parse_network(text)
    paired = {text for pair in report.PAPER_PAIRS for text in pair}
    assert paired <= set(report.PAPER_MODELS)


def test_erf(call, workspace, tmp_path):
    path = tmp_path / 'figures/erf.png'
    said = call(
        *('erf', workspace / 'seg.py', 't2', '--names', 'first', 'second'),
        *('--stages', -1, '--size', 64, '--num-images', 2, '--out', path),
        *('--images', workspace / 'colours' / 'blue', '--device', 'cpu'),
    )
    assert '| first, random weights | 64 |' in said
    assert '| second, random weights | 64 |' in said
    shown(path)


@pytest.mark.parametrize(
    'args, said',
    [
        (['erf', 'seg.py', '--out', 'a.txt'], 'a.txt'),
        (['erf', 'seg.py', '--names', 'a', 'b'], '--names'),
        (['erf', 'seg.py', '--stages', 3, '--size', 64], 'Stage 3'),
        (['benchmark', 't2', '--baseline', PEER], 'test_efficientnet'),
        (['benchmark', 't2', '--cuda-graph'], '--device cuda'),
        (['vis_cam', 'seg.py', 'seg.py'], 'seg.py'),
        (['get_flops', 'det.py', '--shape', 1, 2, 3], '--shape'),
    ],
)
def test_what_is_refused(refuse, workspace, monkeypatch, args, said):
    monkeypatch.chdir(workspace)
    assert said in refuse(*args)


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_vis_cam(call, workspace, tmp_path, name):
    image = sorted((workspace / 'shapes/images/val').iterdir())[0]
    path = tmp_path / 'figures' / f'{name}.png'
    config = workspace / f'{name}.py'
    said = call('vis_cam', image, config, '--out', path, '--device', 'cpu')
    assert 'random weights' in said
    shown(path)


def test_analyze_logs(call, refuse, tmp_path):
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
    said = refuse('analyze_logs', 'a', 'b', '--keys', 'mIoU')
    assert 'mIoU' in said and 'coco/bbox_mAP' in said
    assert '--names' in refuse('analyze_logs', 'a', '--names', *'xy')

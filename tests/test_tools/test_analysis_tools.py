"""Counting, drawing and comparing by command."""

import json

import cv2
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')


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
        return capsys.readouterr().err

    return run


def shown(path):
    """Return a picture that a tool has written, alone in its folder."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    image = cv2.imread(str(path))
    assert image is not None and image.std() > 10
    return image


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_get_flops(call, workspace, name):
    said = call('get_flops', workspace / f'{name}.py', '--shape', 96, 128)
    assert 'input       96 x 128' in said
    lines = call(
        'get_flops', workspace / f'{name}.py', '--shape', 96, '--table'
    ).splitlines()
    whole = int(lines[1].split()[1].replace(',', ''))
    parts = [
        int(line.split()[1].replace(',', ''))
        for line in lines
        if line.startswith('  ') and not line.startswith('   ')
    ]
    # What heads do outside of their layers, as resizing, is in no part.
    assert 1e6 < 0.99 * whole < sum(parts) <= whole
    assert any(f'({whole:,})' in line for line in lines)


def test_get_flops_of_validation_pictures(call, workspace):
    config = workspace / 'det.py'
    said = call('get_flops', config, '--val-images', 2)
    # All of 96 x 96 pixels, as they are: one size, so that one is named.
    assert 'input       96 x 96' in said
    assert said.endswith(call('get_flops', config, '--shape', 96))


def test_get_flops_averages_over_sizes(call, workspace, tmp_path):
    listed = json.loads(
        (workspace / 'shapes/annotations/instances_val.json').read_text()
    )
    listed['images'][0].update(height=48, width=96)
    changed = tmp_path / 'changed.json'
    changed.write_text(json.dumps(listed))
    said = call(
        'get_flops',
        workspace / 'det.py',
        '--val-images',
        2,
        '--cfg-options',
        f'val_dataloader.dataset.ann_file={changed}',
    )
    # 96 x 96 and 48 x 96, the latter padded to 64 x 96.
    assert f'2 pictures, {(96 * 96 + 64 * 96) / 2:,.0f} px' in said


def test_get_flops_tells_of_unread_stages(call, repo):
    config = next(repo.glob('configs/det/ssd/*-512px.py'))
    said = call('get_flops', config)
    assert 'input       512 x 512' in said
    read, built = (
        float(line.split()[-n])
        for line, n in zip(
            [x.partition(' G ')[0] for x in said.splitlines() if ' G ' in x],
            (1, 1),
            strict=True,
        )
    )
    assert read == pytest.approx(3.85, abs=0.02)
    # Published, with the stage that nothing reads.
    assert built == pytest.approx(4.4, rel=0.04)
    config = next(repo.glob('configs/det/ssd/*-320px.py'))
    said = call('get_flops', config)
    # 1.7 G as published is any figure that rounds to it.
    assert 1.65 < float(said.split(' G with')[0].split()[-1]) < 1.75 * 1.02


def test_get_flops_of_the_fused_network(call, workspace):
    config = workspace / 'cls.py'
    plain, fused = (
        float(call('get_flops', config, *more).split(' M ')[0].split()[-1])
        for more in ((), ('--deploy',))
    )
    assert 0.9 * plain < fused < plain


def test_get_flops_refuses(refuse, workspace):
    config = workspace / 'cls.py'
    assert '--shape takes' in refuse('get_flops', config, '--shape', 1, 2, 3)
    assert '--shape takes' in refuse('get_flops', config, '--shape', 0)
    assert 'does not exist' in refuse('get_flops', 'none.py')
    said = refuse('get_flops', config, '--val-images', 2)
    assert 'lists no heights' in said


def test_erf(call, workspace, tmp_path):
    path = tmp_path / 'figures/erf.png'
    said = call(
        'erf',
        workspace / 'seg.py',
        workspace / 'cls.py',
        *('--stages', -1, '--size', 64, '--num-images', 2),
        *('--names', 'first', 'second', '--out', path),
        *('--images', workspace / 'colours' / 'blue', '--device', 'cpu'),
    )
    assert '| first | random weights | 64 |' in said
    assert '| second | random weights | 64 |' in said
    height, width = shown(path).shape[:2]
    assert width > 2 * height


def test_erf_refuses(refuse, workspace):
    config = workspace / 'seg.py'
    assert 'figure ends in' in refuse('erf', config, '--out', 'a.txt')
    assert 'is no network' in refuse('erf', 'b1')
    assert 'cannot be used' in refuse('erf', config, '--device', 'cuda:99')
    assert '--names takes one' in refuse('erf', config, '--names', 'a', 'b')
    assert '--num-images' in refuse('erf', config, '--num-images', 0)
    said = refuse('erf', config, '--stages', 3, '--size', 64)
    assert 'Stage 3 is none of the 3' in said


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_vis_cam(call, workspace, tmp_path, name):
    image = sorted((workspace / 'shapes/images/val').iterdir())[0]
    path = tmp_path / 'figures' / f'{name}.png'
    said = call(
        'vis_cam',
        image,
        workspace / f'{name}.py',
        *('--out', path, '--device', 'cpu'),
    )
    assert 'random weights' in said
    kind = 'Grad-CAM' if name == 'cls' else 'LayerCAM'
    assert kind in said
    shown(path)


def test_vis_cam_refuses(refuse, workspace, tmp_path):
    image = sorted((workspace / 'shapes/images/val').iterdir())[0]
    config = workspace / 'seg.py'
    said = refuse('vis_cam', image, config, '--target', 'hexagon')
    assert "no class is called 'hexagon'" in said and 'triangle' in said
    said = refuse('vis_cam', image, config, '--target', 9)
    assert 'target must be 0 to 3' in said
    said = refuse('vis_cam', image, config, '--layers', 'backbone.stage')
    assert 'has no module' in said and 'backbone.stages' in said
    assert 'can be read' in refuse('vis_cam', config, config)
    said = refuse('vis_cam', image, config, '--device', 'cuda:99')
    assert 'cannot be used' in said
    said = refuse('vis_cam', image, config, 'none.pth')
    assert 'none.pth does not exist' in said
    assert not (tmp_path / 'outputs').exists()


def test_analyze_logs(call, refuse, tmp_path):
    for run, loss in (('a', 2.0), ('b', 1.0)):
        folder = tmp_path / run / '20260101_100000' / 'vis_data'
        folder.mkdir(parents=True)
        records = [
            dict(loss=loss, epoch=1, iter=5, step=5),
            {'coco/bbox_mAP': 0.25, 'step': 1},
        ]
        text = '\n'.join(map(json.dumps, records))
        (folder / 'scalars.json').write_text(text)
    table = tmp_path / 'tables/runs.md'
    path = tmp_path / 'figures/curves.png'
    said = call('analyze_logs', 'a', 'b', '--out', path, '--table', table)
    assert '| coco/bbox_mAP | 0.25 | 0.25 |' in said
    assert table.read_text() == said.partition('\n\n')[0] + '\n'
    shown(path)
    said = refuse('analyze_logs', 'a', 'b', '--keys', 'mIoU')
    assert "no run has 'mIoU'" in said and 'coco/bbox_mAP' in said
    assert '--names takes one' in refuse('analyze_logs', 'a', '--names', *'xy')
    assert 'vis_data' in refuse('analyze_logs', tmp_path / 'c')

"""The tools from a checkpoint to boxes drawn from its exported file."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

pytest.importorskip('onnxruntime')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

PICTURES = dict(det='shapes/images/val', seg='shapes/images/val')


@pytest.fixture(scope='module')
def exported(workspace, tool):
    """Give a function that exports a tiny model through the tool."""
    from mmmobilemamba.apis.inference import build_model

    made = {}

    def call(name, *args):
        if name not in made:
            torch.manual_seed(0)
            model = build_model(Config.fromfile(workspace / f'{name}.py'))
            checkpoint = workspace / f'{name}_deploy.pth'
            torch.save(
                dict(meta={}, state_dict=model.state_dict()), checkpoint
            )
            out = workspace / f'{name}.onnx'
            paths = (workspace / f'{name}.py', checkpoint, out)
            tool('deploy/export_onnx').main(
                [*map(str, paths), '--size', '96', '96', *args]
            )
            made[name] = checkpoint, out
        return made[name]

    return call


def metrics(tool, monkeypatch, workspace, name, checkpoint, *args):
    """Evaluate through tools/test.py and return what it measured."""
    from mmengine.runner import Runner

    found = {}
    test = Runner.test

    def keep(self):
        found.update(test(self))

    monkeypatch.setattr(Runner, 'test', keep)
    tool('test').main(
        [
            str(workspace / f'{name}.py'),
            str(checkpoint),
            '--work-dir',
            str(workspace / f'{name}_evaluated'),
            *args,
        ]
    )
    return found


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_exported_file_evaluates_as_its_checkpoint(
    exported, tool, monkeypatch, workspace, name
):
    checkpoint, out = exported(name, '--preprocess', '--dynamic-size')
    with monkeypatch.context() as patch:
        wanted = metrics(tool, patch, workspace, name, checkpoint)
    with monkeypatch.context() as patch:
        got = metrics(tool, patch, workspace, name, out)
    assert wanted
    assert got == pytest.approx(wanted, abs=1e-3)


def test_openvino_evaluates_as_onnxruntime(
    exported, tool, monkeypatch, workspace, tmp_path
):
    pytest.importorskip('openvino', reason='OpenVINO is an option')
    out = exported('det', '--preprocess', '--dynamic-size')[1]
    run = ('--runtime', 'openvino', '--threads', '1')
    with monkeypatch.context() as patch:
        wanted = metrics(tool, patch, workspace, 'det', out)
    with monkeypatch.context() as patch:
        got = metrics(tool, patch, workspace, 'det', out, *run)
    assert wanted
    assert got == pytest.approx(wanted, abs=1e-3)
    pictures = workspace / PICTURES['det']
    args = (pictures, workspace / 'det.py', out, '--out-dir', tmp_path, *run)
    tool('image_demo').main(list(map(str, args)))
    assert len(list(tmp_path.iterdir())) == len(list(pictures.iterdir()))


@pytest.mark.parametrize('name', ['test', 'image_demo'])
def test_runtimes_are_for_exported_files(
    workspace, tool, capsys, tmp_path, name
):
    torch.save(dict(state_dict=dict(x=torch.ones(1))), tmp_path / 'x.pth')
    args = [workspace / 'cls.py', tmp_path / 'x.pth', '--runtime', 'openvino']
    if name == 'image_demo':
        args.insert(0, workspace / PICTURES['det'])
    with pytest.raises(SystemExit) as ended:
        tool(name).main(list(map(str, args)))
    assert ended.value.code == 2
    assert 'x.pth is a checkpoint' in capsys.readouterr().err


def test_demo_draws_from_the_exported_file(
    exported, tool, workspace, capsys, tmp_path
):
    out = exported('det', '--preprocess', '--dynamic-size')[1]
    folder = workspace / PICTURES['det']
    args = [folder, workspace / 'det.py', out, '--out-dir', tmp_path]
    tool('image_demo').main(list(map(str, args)))
    assert len(list(tmp_path.iterdir())) == len(list(folder.iterdir()))
    assert 'Drawn images' in capsys.readouterr().out


def test_program_of_twenty_lines_draws_boxes(
    exported, repo, workspace, tmp_path
):
    """It runs by itself, and imports nothing of ours."""
    out = exported('det', '--preprocess', '--dynamic-size')[1]
    program = repo / 'tools' / 'deploy' / 'onnx_demo.py'
    picture = next((workspace / PICTURES['det']).iterdir())
    result = tmp_path / 'drawn.png'
    # The least score is lowered, as the tiny detector is untrained.
    text = program.read_text().replace('0.3', '0.0')
    (tmp_path / 'program.py').write_text(text)
    subprocess.run(
        [sys.executable, tmp_path / 'program.py', out, picture, result],
        check=True,
    )
    drawn, plain = cv2.imread(str(result)), cv2.imread(str(picture))
    assert drawn.shape == plain.shape
    assert np.abs(drawn.astype(int) - plain).max() > 50
    lines = program.read_text().splitlines()[1:]
    assert sum(1 for line in lines if line.strip()) <= 21
    assert 'mmmobilemamba.' not in program.read_text()


@pytest.mark.parametrize(
    ('args', 'named'),
    [
        (['--opset', '16'], '17 to 21'),
        (['--size', '16', '64'], '16x64'),
        (['--argmax'], 'argmax'),
        (['--images', 'none'], 'none does not exist'),
        (['--images', 'words.png'], 'words.png is no image'),
        (['--images', 'empty'], 'empty has no images'),
        (['--batch', '0'], 'batch must be 1'),
        (
            ['--cfg-options', 'val_dataloader.dataset.pipeline=[]'],
            'does not say the size',
        ),
    ],
)
def test_bad_input_is_named_before_the_work(
    workspace, tool, capsys, monkeypatch, tmp_path, args, named
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'words.png').write_text('words')
    torch.save(dict(state_dict=dict(x=torch.ones(1))), tmp_path / 'x.pth')
    paths = (workspace / 'cls.py', tmp_path / 'x.pth', tmp_path / 'x.onnx')
    with pytest.raises(SystemExit) as ended:
        tool('deploy/export_onnx').main([*map(str, paths), *args])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / 'x.onnx').exists()


def test_checkpoint_of_another_model(workspace, tool, capsys, tmp_path):
    torch.save(dict(state_dict=dict(x=torch.ones(1))), tmp_path / 'x.pth')
    paths = (workspace / 'cls.py', tmp_path / 'x.pth', tmp_path / 'x.onnx')
    with pytest.raises(SystemExit):
        tool('deploy/export_onnx').main(
            [*map(str, paths), '--size', '64', '64']
        )
    assert 'does not fit' in capsys.readouterr().err
    assert not (tmp_path / 'x.onnx').exists()


def test_file_of_another_kind_than_the_config(
    exported, workspace, tool, capsys
):
    out = exported('cls', '--preprocess', '--dynamic-size')[1]
    with pytest.raises(SystemExit):
        tool('test').main([str(workspace / 'seg.py'), str(out)])
    assert 'is a classifier' in capsys.readouterr().err


def test_int8_and_fp16_from_the_exported_file(
    exported, workspace, tool, capsys, tmp_path
):
    out = str(exported('seg', '--preprocess', '--dynamic-size')[1])
    tool('deploy/quantize_onnx').main(
        [
            *(str(workspace / 'seg.py'), out, str(tmp_path / 'int8.onnx')),
            *(str(workspace / PICTURES['seg']), '--max-loss', '100'),
        ]
    )
    report = capsys.readouterr().out
    assert 'mIoU: ' in report and 'latency: ' in report
    tool('deploy/onnx_to_fp16').main([out, str(tmp_path / 'fp16.onnx')])
    assert 'relative error: ' in capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'int8.onnx', 'fp16.onnx'}

"""The tools from a checkpoint to boxes drawn from its exported file."""

import subprocess
import sys
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

pytest.importorskip('onnxruntime')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

IMAGES = 'shapes/images/val'


@pytest.fixture(scope='module')
def exported(workspace, tool):
    """Give a function that exports a tiny model through the tool."""
    from mmmobilemamba.apis.inference import build_model

    @cache
    def call(name):
        torch.manual_seed(0)
        config, checkpoint, out = (
            workspace / f'{name}{end}' for end in ('.py', '_d.pth', '.onnx')
        )
        model = build_model(Config.fromfile(config))
        torch.save(dict(meta={}, state_dict=model.state_dict()), checkpoint)
        side = '64' if name == 'cls' else '96'
        args = (config, checkpoint, out, '--size', side, side, '--preprocess')
        tool('deploy/export_onnx').main(list(map(str, args)))
        return checkpoint, out

    return call


def metrics(tool, monkeypatch, workspace, name, file, *args):
    """Evaluate through tools/test.py and return what it measured."""
    from mmengine.runner import Runner

    found, test = {}, Runner.test
    with monkeypatch.context() as patch:
        patch.setattr(Runner, 'test', lambda self: found.update(test(self)))
        paths = (workspace / f'{name}.py', file)
        folder = ('--work-dir', workspace / f'{name}_evaluated')
        tool('test').main(list(map(str, (*paths, *folder, *args))))
    return found


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_exported_file_evaluates_as_its_checkpoint(
    exported, tool, monkeypatch, workspace, name
):
    checkpoint, out = exported(name)
    wanted = metrics(tool, monkeypatch, workspace, name, checkpoint)
    assert wanted
    got = metrics(tool, monkeypatch, workspace, name, out)
    assert got == pytest.approx(wanted, abs=1e-3)


def test_openvino_evaluates_and_draws(
    exported, tool, monkeypatch, workspace, tmp_path
):
    pytest.importorskip('openvino', reason='OpenVINO is an option')
    out = exported('det')[1]
    run = ('--runtime', 'openvino', '--threads', '1')
    wanted = metrics(tool, monkeypatch, workspace, 'det', out)
    got = metrics(tool, monkeypatch, workspace, 'det', out, *run)
    assert got == pytest.approx(wanted, abs=1e-3)
    images = workspace / IMAGES
    args = (images, workspace / 'det.py', out, '--out-dir', tmp_path, *run)
    tool('image_demo').main(list(map(str, args)))
    assert len(list(tmp_path.iterdir())) == len(list(images.iterdir()))


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_program_for_a_device(exported, repo, workspace, tmp_path, name):
    """It runs by itself, and imports nothing of ours."""
    program = repo / 'tools' / 'deploy' / 'onnx_demo.py'
    # The least score is lowered, as the tiny detector is untrained.
    text = program.read_text().replace('0.3', '0.0')
    assert 'import mmmobilemamba' not in text
    (tmp_path / 'program.py').write_text(text)
    image = next((workspace / IMAGES).iterdir())
    result = tmp_path / 'drawn.png'

    def run(*args):
        return subprocess.run(
            [sys.executable, tmp_path / 'program.py', *args],
            capture_output=True,
            text=True,
        )

    out = exported(name)[1]
    assert 'drawn.png' in run(out, image, result).stdout
    drawn, plain = cv2.imread(str(result)), cv2.imread(str(image))
    assert drawn.shape == plain.shape
    assert np.abs(drawn.astype(int) - plain).max() > 50
    said = run(out, 'none.png', result).stderr
    assert 'none.png' in said and 'Traceback' not in said


@pytest.mark.parametrize(
    ('args', 'named'),
    [(['16', '64'], '16x64'), (['64', '64'], 'does not fit')],
)
def test_bad_input_is_named(workspace, tool, capsys, tmp_path, args, named):
    weights = tmp_path / 'x.pth'
    torch.save(dict(state_dict=dict(x=torch.ones(1))), weights)
    paths = (workspace / 'cls.py', weights, tmp_path / 'x.onnx')
    with pytest.raises(SystemExit) as ended:
        tool('deploy/export_onnx').main([*map(str, paths), '--size', *args])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / 'x.onnx').exists()


def test_int8_and_fp16_from_the_exported_file(
    exported, workspace, tool, capsys, tmp_path
):
    out = str(exported('seg')[1])
    paths = (workspace / 'seg.py', out, tmp_path / 'int8.onnx')
    args = (*paths, workspace / IMAGES, '--max-loss', '100')
    tool('deploy/quantize_onnx').main(list(map(str, args)))
    said = capsys.readouterr()
    assert 'mIoU: ' in said.out and 'latency: ' in said.out
    assert '2/2' in said.err  # images that were calibrated on
    tool('deploy/onnx_to_fp16').main([out, str(tmp_path / 'fp16.onnx')])
    assert 'relative error: ' in capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'int8.onnx', 'fp16.onnx'}

"""The tools from a checkpoint to boxes drawn from its exported file."""

import subprocess
import sys
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

for library in ('onnxruntime', 'mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(library)

IMAGES = 'shapes/images/val'


@pytest.fixture(scope='module')
def main(tool):
    """Give a function that runs a tool on arguments of any type."""
    return lambda name, *args: tool(name).main(list(map(str, args)))


@pytest.fixture(scope='module')
def exported(workspace, main):
    """Give a function that exports a tiny model through the tool."""
    from mmmobilemamba.apis.inference import build_model

    @cache
    def call(name):
        torch.manual_seed(0)
        paths = [workspace / f'{name}{s}' for s in ('.py', '_d.pth', '.onnx')]
        model = build_model(Config.fromfile(paths[0]))
        torch.save(dict(meta={}, state_dict=model.state_dict()), paths[1])
        side = 64 if name == 'cls' else 96
        args = ('--preprocess', '--images', workspace / IMAGES)
        main('deploy/export_onnx', *paths, '--size', side, side, *args)
        return paths[1:]

    return call


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_exported_file_evaluates_and_draws(
    exported, main, monkeypatch, workspace, tmp_path, name, runtime
):
    from mmengine.runner import Runner

    pytest.importorskip(runtime)
    config, found, test = workspace / f'{name}.py', [], Runner.test
    monkeypatch.setattr(Runner, 'test', lambda self: found.append(test(self)))
    checkpoint, out = exported(name)
    run = ('--runtime', runtime, '--threads', 1)
    for file, args in ((checkpoint, ()), (out, run)):
        main('test', config, file, '--work-dir', tmp_path / 'run', *args)
    assert found[0] and found[1] == pytest.approx(found[0], abs=1e-3)
    if name == 'det':
        images, drawn = workspace / IMAGES, tmp_path / 'drawn'
        main('image_demo', images, config, out, '--out-dir', drawn, *run)
        assert len(list(drawn.iterdir())) == len(list(images.iterdir()))


@pytest.mark.parametrize('name', ['det', 'seg', 'cls'])
def test_program_for_a_device(exported, repo, workspace, tmp_path, name):
    """It runs by itself, and imports nothing of ours."""
    text = (repo / 'tools' / 'deploy' / 'onnx_demo.py').read_text()
    assert 'import mmmobilemamba' not in text
    # The least score is lowered, as the tiny detector is untrained.
    program, result = tmp_path / 'program.py', tmp_path / 'drawn.png'
    program.write_text(text.replace('0.3', '0.0'))
    image = next((workspace / IMAGES).iterdir())
    command = [sys.executable, program, exported(name)[1]]
    subprocess.run([*command, image, result], check=True)
    drawn, plain = cv2.imread(str(result)), cv2.imread(str(image))
    assert drawn.shape == plain.shape
    assert np.abs(drawn.astype(int) - plain).max() > 50
    assert subprocess.run([*command, image, tmp_path / 'x']).returncode == 1


@pytest.mark.parametrize('wrong', ['fit', 'test_dataloader'])
def test_what_is_refused(workspace, main, capsys, tmp_path, wrong):
    weights, out = tmp_path / 'x.pth', tmp_path / 'x.onnx'
    torch.save(dict(state_dict=dict(x=torch.ones(1))), weights)
    more = ('--cfg-options', f'{wrong}=None')
    with pytest.raises(SystemExit) as ended:
        main('deploy/export_onnx', workspace / 'seg.py', weights, out, *more)
    assert ended.value.code == 2 and not out.exists()
    assert wrong in capsys.readouterr().err


def test_int8_and_fp16_from_the_exported_file(
    exported, workspace, main, capsys, tmp_path
):
    out, int8 = exported('seg')[1], tmp_path / 'int8.onnx'
    args = (workspace / 'seg.py', out, int8, workspace / IMAGES)
    main('deploy/quantize_onnx', *args, '--max-loss', 100)
    said = capsys.readouterr()
    assert 'mIoU: ' in said.out and 'latency: ' in said.out
    assert '2/2' in said.err  # images that were calibrated on
    main('deploy/onnx_to_fp16', out, tmp_path / 'fp16.onnx')
    assert 'relative error: ' in capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'int8.onnx', 'fp16.onnx'}

"""The quickstart with few scenes and steps."""

import json

import cv2
import pytest

for library in ('mmdet', 'mmseg'):
    pytest.importorskip(library)


@pytest.mark.slow
def test_trains_reports_and_keeps_to_its_settings(run, tmp_path):
    tool, out = 'quickstart.py', tmp_path / 'out'
    done = run(tmp_path, tool, '--smoke', '--out', out)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((out / 'summary.json').read_text())
    for task, metric in (('detection', 'mask AP50'), ('segmentation', 'mIoU')):
        assert 0 <= summary[task]['trained'][metric] <= 1
        assert f'{task} (trained in' in done.stdout
    files = summary['files']
    for path in sum(files.values(), []):
        assert path in done.stdout
    assert len(files['checkpoints']) == 2
    for path in files['pictures'] + files['curves']:
        # A page without anything on it has one colour.
        assert cv2.imread(path).std() > 5
    done = run(tmp_path, tool, '--smoke', '--out', out, '--seed', '1')
    assert done.returncode == 1
    assert 'holds other data' in done.stderr and "'seed': 1" in done.stderr
    assert 'Traceback' not in done.stderr

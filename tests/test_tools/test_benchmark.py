"""The benchmark as a user runs it, on tiny networks."""

import json

import cv2
import pytest

pytest.importorskip('timm')

OURS, PEER = 'mobilemamba:t2@64', 'timm:test_efficientnet@64'
QUICK = ['--device', 'cpu', '--rounds', '2', '--warmup', '1', '--seconds', '1']


@pytest.fixture
def benchmark(tool, capsys):
    """Give a function that runs the tool and returns what it printed."""

    def call(*args):
        tool('analysis_tools/benchmark').main([*map(str, args), *QUICK])
        return capsys.readouterr().out

    return call


@pytest.fixture
def refuse(tool, capsys):
    """Give a function that runs the tool and returns its complaint."""

    def call(*args):
        with pytest.raises(SystemExit) as ended:
            tool('analysis_tools/benchmark').main([*map(str, args)])
        assert ended.value.code == 2
        said = capsys.readouterr()
        assert said.out == ''
        assert 'Traceback' not in said.err
        return said.err

    return call


def test_table_json_and_plot(benchmark, tmp_path, monkeypatch):
    from mmmobilemamba.analysis import published

    # A published accuracy for what is small enough to test with.
    entry = published.Published('Test', 'Test', 64, 50.0, 'none', 'distilled')
    monkeypatch.setitem(published.PUBLISHED, PEER.split('@')[0], entry)
    out = tmp_path / 'new' / 'folder'
    args = [OURS, PEER, 'mobilemamba:t2@192', '--baseline', PEER]
    said = benchmark(*args, '--batch-sizes', 1, 2, '--out-dir', out)
    lines = said.splitlines()
    assert '| batch 1, ms | batch 2, img/s |' in lines[0]
    assert [line.split('|')[1].strip() for line in lines[2:5]] == [
        'mobilemamba:t2',
        'Test',
        'MobileMamba-T2',
    ]
    assert '| 64 | 8.8 M |' in lines[2]
    assert '| 50.0, distilled |' in lines[3]
    assert '| 73.6 |' in lines[4]
    assert '| mobilemamba:t2 | Test |' in said
    report = json.loads((out / 'benchmark.json').read_text())
    assert report['command'].startswith(
        'python tools/analysis_tools/benchmark.py mobilemamba:t2@64'
    )
    assert report['environment']['threads'] > 0
    assert len(report['models']) == 3
    assert len(report['pairs']) == 4
    assert all(pair['speed'] > 0 for pair in report['pairs'])
    assert said in (out / 'benchmark.md').read_text()
    picture = cv2.imread(str(out / 'benchmark.png'))
    assert min(picture.shape[:2]) > 500
    assert picture.std() > 10
    assert len(list(out.iterdir())) == 3


def test_detector_and_segmentor_by_config(benchmark, workspace, tmp_path):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    det, seg = workspace / 'det.py', workspace / 'seg.py'
    said = benchmark(
        f'{det}@64x96', f'{seg}@64', '--batch-sizes', 2, '--out-dir', tmp_path
    )
    assert '| det.py | 64x96 |' in said
    assert '| seg.py | 64 |' in said
    # Nothing published, nothing to plot.
    assert not (tmp_path / 'benchmark.png').exists()


def test_backends_and_plain_form(benchmark):
    said = benchmark(
        *(OURS, PEER, '--plain', '--batch-sizes', 1),
        *('--backends', 'parallel', 'reference'),
    )
    assert 'mobilemamba:t2 (backend=parallel)' in said
    assert 'mobilemamba:t2 (backend=reference)' in said
    assert 'as trained' in said


def test_training(benchmark):
    said = benchmark(PEER, '--train', '--batch-sizes', 2)
    assert 'forward and backward' in said


def test_breakdown(benchmark):
    said = benchmark(PEER, '--breakdown', '--batch-sizes', 1)
    assert '| module |' in said
    assert '| operator |' in said


def test_results_of_another_run_stay(refuse, tmp_path):
    (tmp_path / 'benchmark.json').write_text('old')
    said = refuse(OURS, '--out-dir', tmp_path)
    assert '--overwrite' in said
    assert (tmp_path / 'benchmark.json').read_text() == 'old'


@pytest.mark.parametrize(
    ('args', 'said'),
    [
        ([], 'at least one network'),
        (['timm:efficientvit_m55'], 'efficientvit_m5'),
        (['mobilemamba:s7'], 't2, t4, s6'),
        (['mobilemamba:t2@x'], 'HEIGHTxWIDTH'),
        (['none.py'], 'does not exist'),
        (['mobilemamba:t2@16'], 'takes 32x32 and larger'),
        ([OURS, '--device', 'cuda:99'], 'cuda:99'),
        ([OURS, '--baseline', PEER], 'not among the networks'),
        ([OURS, '--train', '--memory'], 'predictions only'),
        ([OURS, '--rounds', '0'], 'rounds must be at least 1'),
        ([OURS, '--seconds', '0'], 'budget must be positive'),
    ],
)
def test_wrong_input_ends_with_a_sentence(refuse, args, said):
    if '--device' not in args:
        args = [*args, '--device', 'cpu']
    assert said in refuse(*args)


def test_paper_table_lists_ours_beside_the_peers(tool):
    module = tool('analysis_tools/benchmark')
    args = module.make_parser().parse_args(['--table', 'paper'])
    requests = module.read_requests(args)
    assert len(requests) == len({r.label for r in requests}) > 30
    assert all(request.form.deploy for request in requests)
    settings = module.read_settings(args, requests)
    assert ('mobilemamba:s6@224', 'timm:efficientvit_m5@224') in settings.pairs

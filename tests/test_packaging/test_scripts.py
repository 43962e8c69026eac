"""The shell entries, with stand-ins for what takes long."""

import shutil
import subprocess

import pytest

BASH = shutil.which('bash')


def write_script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!{BASH}\n{text}\n')
    path.chmod(0o755)


def run(script, *args, **env):
    return subprocess.run(
        [BASH, script, *args],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def checkout(repo, tmp_path):
    """Give a checkout with the shell entries alone."""
    folder = tmp_path / 'a checkout'
    for name in ('tools/setup_env.sh', 'tools/run_tests.sh', '.ci/run'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repo / name, folder / name)
    return folder


def test_setup_names_the_python_it_wants(checkout, tmp_path):
    programs = tmp_path / 'programs'
    write_script(
        programs / 'python3',
        '[[ $1 == --version ]] && echo "Python 3.8.1" || exit 1',
    )
    for name in ('dirname', 'head'):
        (programs / name).symlink_to(shutil.which(name))
    done = run(checkout / 'tools' / 'setup_env.sh', PATH=str(programs))
    assert done.returncode != 0
    assert 'Python 3.10, 3.11 or 3.12' in done.stderr
    assert 'python3 (Python 3.8.1)' in done.stderr
    assert not (checkout / '.venv').exists()


@pytest.fixture
def pytest_stub(checkout, tmp_path):
    """Give a function that runs run_tests.sh and lists the pytest runs."""
    log = tmp_path / 'calls'
    write_script(checkout / 'tools' / 'setup_env.sh', 'exit 0')
    write_script(
        checkout / '.venv' / 'bin' / 'python',
        f'echo "$*" >> "{log}"\n'
        '[[ $* == *ext/selective_scan/tests* ]] && exit $EXT_STATUS\n'
        'exit $STATUS',
    )
    (checkout / 'tests').mkdir()

    def call(*args, status=0, ext_status=0, script='tools/run_tests.sh'):
        done = run(
            checkout / script,
            *args,
            STATUS=str(status),
            EXT_STATUS=str(ext_status),
            PATH='/usr/bin:/bin',
        )
        return done.returncode, log.read_text().splitlines()

    return call


# An option such as -k may choose from one of them, or from none: 5.
@pytest.mark.parametrize(
    ('status', 'ext_status', 'together'),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (0, 5, 0), (5, 0, 0), (5, 5, 5)],
)
def test_run_tests_runs_both_distributions(
    pytest_stub, status, ext_status, together
):
    script = '.ci/run' if not status + ext_status else 'tools/run_tests.sh'
    code, (first, second) = pytest_stub(
        *('--slow', '-x'), status=status, ext_status=ext_status, script=script
    )
    assert code == together
    assert 'selective_scan' not in first
    assert 'ext/selective_scan/tests' in second
    for call in (first, second):
        assert call.startswith('-m pytest ')
        assert call.endswith(' -m  -x')  # slow ones, too


def test_run_tests_with_a_path_runs_only_that(pytest_stub):
    code, calls = pytest_stub('tests::test_x', '-q', status=3)
    assert (code, calls) == (3, ['-m pytest tests::test_x -q'])

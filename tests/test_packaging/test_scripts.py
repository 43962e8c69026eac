"""The shell entries, with stand-ins for what takes long."""

import shutil
import subprocess

import pytest

BASH = shutil.which('bash')


def write_script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!{BASH}\n{text}\n')
    path.chmod(0o755)


@pytest.fixture
def checkout(repo, tmp_path):
    """Give a checkout with the shell entries alone."""
    folder = tmp_path / 'a checkout'
    for name in ('tools/setup_env.sh', 'tools/run_tests.sh', '.ci/run'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repo / name, folder / name)
    return folder


def test_setup_names_the_python_it_wants(checkout, tmp_path):
    answer = '[[ $1 == --version ]] && echo "Python 3.8.1" || exit 1'
    write_script(tmp_path / 'programs' / 'python3', answer)
    for name in ('dirname', 'head'):
        (tmp_path / 'programs' / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [BASH, checkout / 'tools' / 'setup_env.sh'],
        env=dict(PATH=str(tmp_path / 'programs')),
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'Python 3.10, 3.11 or 3.12' in done.stderr
    assert 'python3 (Python 3.8.1)' in done.stderr
    assert not (checkout / '.venv').exists()


@pytest.fixture
def run_tests(checkout, tmp_path):
    """Give a function that runs run_tests.sh and lists the pytest runs."""
    log = tmp_path / 'calls'
    (checkout / 'tests').mkdir()
    write_script(checkout / 'tools' / 'setup_env.sh', 'exit 0')
    stub = f'echo "$*" >> "{log}"\n[[ $* != *ext/selective_scan/tests* ]] '
    stub += '|| exit $EXT_STATUS\nexit $STATUS'
    write_script(checkout / '.venv' / 'bin' / 'python', stub)

    def call(*args, status=0, ext_status=0, script='tools/run_tests.sh'):
        env = dict(STATUS=str(status), EXT_STATUS=str(ext_status))
        command = [BASH, checkout / script, *args]
        done = subprocess.run(command, env=env | dict(PATH='/usr/bin:/bin'))
        return done.returncode, log.read_text().splitlines()

    return call


# An option such as -k may choose from one of them, or from none: 5.
@pytest.mark.parametrize(
    ('status', 'ext_status', 'together'),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (0, 5, 0), (5, 0, 0), (5, 5, 5)],
)
def test_run_tests_runs_both_distributions(
    run_tests, status, ext_status, together
):
    script = '.ci/run' if not status + ext_status else 'tools/run_tests.sh'
    code, calls = run_tests(
        *('--slow', '-x'), status=status, ext_status=ext_status, script=script
    )
    assert code == together
    assert ['ext/selective_scan/tests' in call for call in calls] == [0, 1]
    for call in calls:  # slow ones, too
        assert call.startswith('-m pytest ') and call.endswith(' -m  -x')


def test_run_tests_with_a_path_runs_only_that(run_tests):
    code, calls = run_tests('tests::test_x', '-q', status=3)
    assert (code, calls) == (3, ['-m pytest tests::test_x -q'])

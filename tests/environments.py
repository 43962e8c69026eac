"""Environments that see some of the libraries the tests run with."""

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

# The site-packages that the tests run with.
LIBRARIES = Path(sysconfig.get_path('purelib'))


class Environment:
    """A fresh venv, with a folder to work in that is no checkout.

    It sees the site-packages ``libraries`` besides its own; their .pth files
    do not count, so nothing editable comes with them.
    """

    def __init__(self, folder, libraries):
        venv.create(folder / 'env', with_pip=False)
        self.python = folder / 'env' / 'bin' / 'python'
        (self.site,) = folder.glob('env/lib/python*/site-packages')
        # Python 3.12 has no distutils, and mmengine takes setuptools'.
        shim = 'import _distutils_hack; _distutils_hack.add_shim()'
        (self.site / 'libraries.pth').write_text(f'{libraries}\n{shim}\n')
        self.work = folder / 'work'
        self.work.mkdir()

    def run(self, *args, **env):
        """Run the environment's Python and return what it printed."""
        hidden = dict(PYTHONPATH='', MMMOBILEMAMBA_SCAN='')
        env = os.environ | hidden | env
        done = subprocess.run(
            [self.python, *args],
            cwd=self.work,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def install(self, *args):
        """Install from sources with what is there to build with."""
        command = '-m pip install -q -I --no-deps --no-build-isolation'
        self.run(*command.split(), *args)

    def mim(self, *args):
        return self.run('-W', 'ignore', '-m', 'mim', *args)


def link_libraries(folder, without):
    """Fill ``folder`` with links to the libraries but those in ``without``."""
    for path in LIBRARIES.iterdir():
        name = path.name.partition('-')[0].partition('.')[0]
        if name not in without:
            (folder / path.name).symlink_to(path)
    return folder

"""Packaging of mmmobilemamba; metadata is here, tool settings in pyproject.

mim looks for a package's configs, tools and model index in a folder ``.mim``
inside the installed package. Wheels get it from ``build_py``; editable
installs (PEP 660) never run ``develop``, so the folder is put into the
editable wheel itself.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmmobilemamba'
MIM_SOURCES = ('configs', 'tools', 'model-index.yml')
# These work on a checkout: in an installed package they would make their
# environment inside site-packages.
NOT_FOR_MIM = (
    '__pycache__',
    '*.py[cod]',
    'quickstart.sh',
    'run_tests.sh',
    'setup_env.sh',
)


def read_version():
    """Read the version without importing the package and so torch."""
    text = (ROOT / PACKAGE / 'version.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
    if match is None:
        raise ValueError(f'{PACKAGE}/version.py sets no __version__')
    return match[1]


def read_requirements(name):
    """Read the requirements in ``requirements/{name}.txt``."""
    text = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def add_mim_folder(package_folder):
    """Write a fresh ``.mim`` folder into ``package_folder``.

    The files are copies: a wheel cannot hold links.
    """
    target = Path(package_folder) / '.mim'
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in MIM_SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                target / name,
                ignore=shutil.ignore_patterns(*NOT_FOR_MIM),
            )
        else:
            shutil.copy2(source, target / name)
    return target


class BuildPyWithMim(build_py):
    """Add the ``.mim`` folder to what goes into a wheel."""

    def run(self):
        super().run()
        if not self.editable_mode:
            add_mim_folder(Path(self.build_lib) / PACKAGE)

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        folder = Path(self.build_lib) / PACKAGE / '.mim'
        return outputs + [str(p) for p in folder.rglob('*') if p.is_file()]


class EditableWheelWithMim(editable_wheel):
    """Add the ``.mim`` folder to the wheel of an editable install."""

    def _run_build_commands(self, dist_name, unpacked_wheel, *args):
        result = super()._run_build_commands(dist_name, unpacked_wheel, *args)
        add_mim_folder(Path(unpacked_wheel) / PACKAGE)
        return result


LIBRARIES = {
    name: read_requirements(name)
    for name in ('det', 'seg', 'cls', 'deploy', 'openvino', 'coreml')
}
MIM_INSTALL = read_requirements('mminstall')
TESTS = read_requirements('tests')

setup(
    name=PACKAGE,
    version=read_version(),
    description='MobileMamba for MMDetection, MMSegmentation and MMPretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='MMMobileMamba Contributors',
    license='Apache-2.0',
    keywords='computer vision, object detection, semantic segmentation, '
    'backbone, state space model, MobileMamba, OpenMMLab',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    python_requires='>=3.10',
    # With the explicit '.' setuptools makes editable installs a plain .pth
    # line. Its import finder would shadow the folder that mim reads.
    package_dir={'': '.'},
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['deploy/web/*']},
    include_package_data=False,
    install_requires=read_requirements('runtime'),
    extras_require={
        **LIBRARIES,
        'mim': MIM_INSTALL,
        'onedl': read_requirements('onedl'),
        'tests': TESTS,
        'all': sorted(
            {*MIM_INSTALL, *TESTS, *(r for v in LIBRARIES.values() for r in v)}
        ),
    },
    cmdclass={
        'build_py': BuildPyWithMim,
        'editable_wheel': EditableWheelWithMim,
    },
    zip_safe=False,
)

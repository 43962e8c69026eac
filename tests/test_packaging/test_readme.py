"""What the README, the documents and the configs' READMEs name is there."""

import re

import pytest

LINK = re.compile(r'\]\((?!https?://|#)([^)#]+)')
MENTION = re.compile(
    r'(?<!/)\b(?:configs|tools|tests|ext|requirements)/[\w./-]+\w'
)


# A copy that the reader makes.
COPY = 'configs/own_data/fpn_streets.py'


@pytest.fixture(scope='module')
def texts(repo):
    paths = [repo / 'README.md', *repo.glob('docs/*.md')]
    paths += repo.glob('configs/**/README.md')
    return {path: path.read_text(encoding='utf-8') for path in paths}


def test_links_and_commands_name_files_that_exist(texts, repo):
    for path, text in texts.items():
        files = [path.parent / link for link in LINK.findall(text)]
        files += map(repo.joinpath, MENTION.findall(LINK.sub('', text)))
        missing = [file for file in files if not file.exists()]
        assert set(missing) <= {repo / COPY}, path


def test_python_in_readmes_is_python(texts):
    for path, text in texts.items():
        for code in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
            compile(code, str(path), 'exec')

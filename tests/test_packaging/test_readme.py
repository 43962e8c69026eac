"""What the README, the documents and the configs' READMEs name is there."""

import re

import pytest

LINK = re.compile(r'\]\((?!https?://|#)([^)#]+)')
FOLDERS = 'configs|tools|tests|ext|requirements'
MENTION = re.compile(rf'(?<!/)\b(?:{FOLDERS})/[\w./-]+\w')
# A copy that the reader makes.
COPY = 'configs/own_data/fpn_streets.py'


@pytest.mark.parametrize(
    'start', ['README.md', 'docs/*.md', 'configs/**/*.md']
)
def test_documents_name_what_is_there(repo, start):
    paths = list(repo.glob(start))
    assert paths
    for path in paths:
        text = path.read_text(encoding='utf-8')
        files = [path.parent / link for link in LINK.findall(text)]
        files += map(repo.joinpath, MENTION.findall(LINK.sub('', text)))
        missing = {file for file in files if not file.exists()}
        assert missing <= {repo / COPY}, path
        for code in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
            compile(code, str(path), 'exec')

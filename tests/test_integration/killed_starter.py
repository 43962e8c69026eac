"""Fork processes for each line of input, which run tools/train.py.

Importing torch anew would be most of the time of a start. Each line holds the
arguments and the variables of each process in JSON; the answers are the number
of the first process and how it ended.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

# What a start needs.
import mmengine.runner  # noqa: F401
import torch  # noqa: F401
import toy_training  # noqa: F401

import mmmobilemamba.datasets
import mmmobilemamba.engine  # noqa: F401


def run(tool, arguments, log):
    sys.stdin.close()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    try:
        tool['main'](arguments)
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main():
    path, log = sys.argv[1:]
    tool = runpy.run_path(path)
    Path(log).touch()
    for line in sys.stdin:
        arguments, environments = json.loads(line)
        children = []
        for variables in environments:
            children.append(os.fork())
            if children[-1] == 0:
                os.environ.update(variables)
                os._exit(run(tool, arguments, log))
        print(children[0], flush=True)
        print([os.waitpid(x, 0)[1] for x in children][0], flush=True)


main()

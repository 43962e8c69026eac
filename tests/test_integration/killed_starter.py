"""Fork one process per line of input, which runs tools/train.py.

Importing torch anew would be most of the time of a start. Each line holds the
arguments in JSON; the answers are the number of the process and how it ended.
"""

import importlib.util
import json
import os
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
        tool.main(arguments)
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main():
    path, log = sys.argv[1:]
    spec = importlib.util.spec_from_file_location('train', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    Path(log).touch()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(run(tool, json.loads(line), log))
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


main()

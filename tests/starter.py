"""Processes that run tools/train.py, forked where torch is imported."""

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


class Starter:
    """Start train.py in processes that print to a file, and look on."""

    def __init__(self, log):
        self.log = log
        log.touch()
        paths = [str(HERE), str(HERE.parent), os.environ.get('PYTHONPATH', '')]
        self.process = subprocess.Popen(
            [sys.executable, __file__, log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        )

    def start(self, *arguments, processes=1):
        """Return the number of the first process."""
        if processes > 1:
            arguments = [*arguments, '--launcher', 'pytorch']
        with socket.create_server(('127.0.0.1', 0)) as server:
            port = str(server.getsockname()[1])
        common = dict(MASTER_PORT=port, MASTER_ADDR='127.0.0.1')
        common['WORLD_SIZE'] = str(processes)
        ranks = map(str, range(processes))
        environments = [dict(common, RANK=i, LOCAL_RANK=i) for i in ranks]
        line = json.dumps([[*map(str, arguments)], environments])
        print(line, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def end(self):
        """Wait; return the first one's exit code, negative for a signal."""
        status = int(self.process.stdout.readline())
        return os.waitstatus_to_exitcode(status)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve(log):
    """Answer each line with the first process's number and how it ended."""
    import mmengine.runner  # noqa: F401

    import mmmobilemamba.datasets
    import mmmobilemamba.engine  # noqa: F401

    main = runpy.run_path(str(HERE.parent / 'tools' / 'train.py'))['main']
    for line in sys.stdin:
        arguments, environments = json.loads(line)
        children = []
        for variables in environments:
            children.append(os.fork())
            if children[-1] == 0:
                os.environ.update(variables)
                for stream in (1, 2):
                    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
                sys.exit(main(arguments))
        print(children[0], flush=True)
        print([os.waitpid(x, 0)[1] for x in children][0], flush=True)


if __name__ == '__main__':
    serve(sys.argv[1])

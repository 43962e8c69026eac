"""The process in which a benchmark runs one exported network.

Called with a file, a runtime, a number of threads and a file of numpy that
holds the picture. Reads numbers of calls, writes what they took, as JSON. It
imports no torch, whose threads would be others than those of the runtime.
"""

import json
import sys
import time

import numpy as np

from ..deploy.session import Session


def serve(path: str, runtime: str, threads: str, picture: str) -> None:
    """Load a network, tell whether it works, and time it when asked to.

    Args:
        path (str): File of the network.
        runtime (str): What runs it.
        threads (str): Threads.
        picture (str): File of the picture.
    """
    image = np.load(picture)
    try:
        session = Session(path, runtime, int(threads))
        values = session(image).values()
    except ImportError as error:
        _say(missing=str(error))
        return
    except Exception as error:
        # Runtimes raise types of their own; the benchmark reports them.
        _say(error=str(error).strip().partition('\n')[0])
        return
    floats = [v for v in values if np.issubdtype(v.dtype, np.floating)]
    _say(finite=all(bool(np.isfinite(v).all()) for v in floats))
    for line in sys.stdin:
        repeats = int(line)
        if repeats > 1:
            session(image)  # as in timing
        started = time.perf_counter()
        for _ in range(repeats):
            session(image)
        _say(seconds=(time.perf_counter() - started) / repeats)


def _say(**values) -> None:
    print(json.dumps(values), flush=True)


if __name__ == '__main__':
    serve(*sys.argv[1:])

"""The process in which a benchmark runs exported networks of one runtime.

Called with a runtime and a number of threads. Reads orders, one line of JSON
each: to load a file with the picture of a file of numpy, or to run a network
that was loaded. Answers in JSON. It imports no torch, whose threads would be
others than those of the runtime.
"""

import json
import sys
import time

import numpy as np

from ..deploy.session import Session, set_shared_threads


def serve(runtime: str, threads: str) -> None:
    """Load networks, tell whether they work, and time them when asked to.

    Args:
        runtime (str): What runs them.
        threads (str): Threads.
    """
    networks: list[tuple] = []
    for line in sys.stdin:
        order = json.loads(line)
        if 'path' in order:
            _say(**_load(networks, runtime, int(threads), **order))
        else:
            _say(seconds=_time(*networks[order['network']], order['repeats']))


def _load(
    networks: list, runtime: str, threads: int, path: str, picture: str
) -> dict:
    image = np.load(picture)
    try:
        if runtime == 'onnxruntime' and not networks:
            set_shared_threads(threads)
        session = Session(path, runtime, threads, share_threads=True)
        values = session(image).values()
    except ImportError as error:
        return dict(missing=str(error))
    except Exception as error:
        # Runtimes raise types of their own; the benchmark reports them.
        return dict(error=str(error).strip().partition('\n')[0])
    networks.append((session, image))
    floats = [v for v in values if np.issubdtype(v.dtype, np.floating)]
    return dict(finite=all(bool(np.isfinite(v).all()) for v in floats))


def _time(session: Session, image: np.ndarray, repeats: int) -> float:
    if repeats > 1:
        session(image)  # as in timing
    started = time.perf_counter()
    for _ in range(repeats):
        session(image)
    return (time.perf_counter() - started) / repeats


def _say(**values) -> None:
    print(json.dumps(values), flush=True)


if __name__ == '__main__':
    serve(*sys.argv[1:])

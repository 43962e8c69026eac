"""Call the operators at random, wrong arguments included, many times over.

Best with the sanitizers, which find what reads or writes beyond a tensor::

    bash tools/run_sanitized_tests.sh --fuzz --calls 1000000

A call is made from the seed and its number. The state file holds the number
of the call under way, even where the process is ended by a sanitizer: the
same command goes on from there, ``--start N --calls 1`` makes one call again.
"""

import argparse
import mmap
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tests'))


class State:
    """The next call, and how many of each kind there were, in a file."""

    def __init__(self, path, start, kinds):
        self._keys = [(kind, taken) for kind in kinds for taken in (1, 0)]
        self._form = f'<{2 + len(self._keys)}q'
        size = struct.calcsize(self._form)
        if start is not None or not path.exists():
            path.write_bytes(struct.pack('<q', start or 0).ljust(size, b'\0'))
        if path.stat().st_size != size:
            raise SystemExit(f'{path} is of another list of operators.')
        with open(path, 'r+b') as file:
            self._map = mmap.mmap(file.fileno(), size)
        values = struct.unpack(self._form, self._map[:])
        self.next, self.failed = values[:2]
        self.counts = dict(zip(self._keys, values[2:], strict=True))

    def save(self):
        self._map[:] = struct.pack(
            self._form, self.next, self.failed, *self.counts.values()
        )


def run(args):
    # They load the extension, so not for --help.
    from fuzz_calls import KINDS, run_call

    state = State(args.state, args.start, KINDS)
    end = (state.next if args.start is not None else 0) + args.calls
    began, first = time.monotonic(), state.next
    while state.next < end:
        state.save()
        try:
            state.counts[run_call(args.seed, state.next)] += 1
        except AssertionError as error:
            state.failed += 1
            print(f'FAILED {error}', flush=True)
        state.next += 1
        if state.next % args.report == 0 or state.next == end:
            rate = (state.next - first) / (time.monotonic() - began)
            print(
                f'{state.next} of {end} calls, {state.failed} failed, '
                f'{rate:.0f} a second',
                flush=True,
            )
    state.save()
    for kind in KINDS:
        taken, refused = (state.counts[kind, way] for way in (True, False))
        print(f'{kind}: {taken} computed, {refused} refused')
    return 1 if state.failed else 0


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--calls', type=int, default=10000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--start', type=int, help='first call, instead of where a run stopped'
    )
    parser.add_argument(
        '--state', type=Path, default=Path('fuzz.state'), help='where it is'
    )
    parser.add_argument(
        '--report', type=int, default=10000, help='calls between two lines'
    )
    return run(parser.parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())

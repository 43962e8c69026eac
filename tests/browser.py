"""Driving headless Chromium through a pipe, by its own protocol."""

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator

FLAGS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic'),
    *('--no-first-run', '--disable-background-networking'),
    *('--disable-component-update', '--disable-sync'),
    *('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'),
    *('--enable-logging=stderr', '--remote-debugging-pipe'),
)


class Browser:
    """A tab of Chromium.

    ``folder`` gets its profile, ``log``, with what pages wrote to their
    consoles, and ``net``, with all that was requested.
    """

    def __init__(self, program: str, folder: os.PathLike):
        flags = [f'--user-data-dir={folder}/profile']
        flags += [f'--log-net-log={folder}/net']
        self.process = subprocess.Popen(
            # Chromium reads descriptor 3 and writes 4.
            ['sh', '-c', 'exec "$@" 3<&0 4>&1', '', program, *FLAGS, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(f'{folder}/log', 'wb'),
        )
        self._numbers, self._answers = itertools.count(), self._read()
        self._session = {}
        target = self.call('Target.createTarget', url='about:blank')
        self._session = self.call(
            'Target.attachToTarget', flatten=True, **target
        )

    def _read(self) -> Iterator[dict]:
        rest = b''
        while chunk := self.process.stdout.read1(2**20):
            *answers, rest = (rest + chunk).split(b'\0')
            yield from map(json.loads, answers)

    def call(self, method: str, **params) -> dict:
        """Call a method of the protocol on the tab."""
        number = next(self._numbers)
        message = dict(self._session, id=number, method=method, params=params)
        self.process.stdin.write(json.dumps(message).encode() + b'\0')
        self.process.stdin.flush()
        for answer in self._answers:
            if answer.get('id') == number:
                return answer['result']
        raise RuntimeError('Chromium has ended.')

    def js(self, expression: str, **how):
        """Evaluate JavaScript; promises are awaited."""
        how = dict(awaitPromise=True, returnByValue=True) | how
        done = self.call('Runtime.evaluate', expression=expression, **how)
        assert 'exceptionDetails' not in done, done
        return done['result'].get('value', done['result'].get('objectId'))

    def wait(self, condition: str, seconds: int = 60) -> None:
        """Wait until an expression of JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.js(condition):
            assert time.monotonic() < end, self.js('document.body.innerText')
            time.sleep(0.1)

    def close(self) -> None:
        self.call('Browser.close')
        self.process.wait()

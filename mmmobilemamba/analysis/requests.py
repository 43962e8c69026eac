"""Names of networks to time, and the form in which each is run.

A name is ``KIND:NETWORK@SIZE,KEY=VALUE,...``: ``mobilemamba:b1@256``,
``timm:efficientvit_m5``, ``configs/det/...py@800x1344``, or
``mobilemamba:b1@256,deploy=no,backend=parallel`` where one network shall
differ from the rest of a run.
"""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..deploy import RUNTIMES
from ..ops import BACKENDS
from .published import PUBLISHED, Published

KINDS = ('mobilemamba', 'timm', 'config', 'onnx', 'scan')
DTYPES = ('float32', 'bfloat16', 'float16')
COMPILE_MODES = ('default', 'reduce-overhead', 'max-autotune')

# Of an exported scan; as mmmobilemamba.deploy.scan has them.
SCANS = ('chunked', 'doubling', 'scan')
_OPTIONAL = ('backend', 'compile', 'runtime', 'scan')
_YES = ('yes', 'true', '1', 'on')
_NO = ('no', 'false', '0', 'off')
_SUFFIXES = {'.py': 'config', '.onnx': 'onnx'}


@dataclass(frozen=True)
class Form:
    """How a network is run.

    Args:
        deploy (bool): Fuse what is fixed after training: branches, norms,
            shortcuts. Defaults to True.
        backend (str, optional): Scan of our networks; None takes the fastest
            at hand. Defaults to None.
        compile (str, optional): Mode of :func:`torch.compile`; None runs
            eagerly. Defaults to None.
        channels_last (bool): Lay pictures and weights out channels last.
            Defaults to False.
        dtype (str): One of :data:`DTYPES`. Defaults to ``'float32'``.
        pack (bool): Let ours keep weights packed between calls. Without, they
            run on PyTorch's own operators, as a network of any other library
            does. Defaults to True.
        runtime (str, optional): Runtime that computes the network, exported
            to ONNX; None is torch, and onnxruntime for a file. Defaults to
            None.
        scan (str, optional): Form of an exported scan; None takes that of
            an export. Defaults to None.
        chunk (int, optional): Tokens of a chunk of an exported scan. Defaults
            to None.

    Raises:
        ValueError: A value is none of those allowed.
    """

    deploy: bool = True
    backend: str | None = None
    compile: str | None = None
    channels_last: bool = False
    dtype: str = 'float32'
    pack: bool = True
    runtime: str | None = None
    scan: str | None = None
    chunk: int | None = None

    def __post_init__(self):
        for name, allowed in (
            ('backend', (None, *BACKENDS)),
            ('compile', (None, *COMPILE_MODES)),
            ('dtype', DTYPES),
            ('runtime', (None, *RUNTIMES)),
            ('scan', (None, *SCANS)),
        ):
            value = getattr(self, name)
            if value not in allowed:
                names = ', '.join(filter(None, allowed))
                raise ValueError(
                    f'{name} must be one of {names}, got {value!r}.'
                )
        if self.runtime and (self.compile or self.dtype != 'float32'):
            raise ValueError(
                f'runtime={self.runtime} has its own compiler and computes '
                'float32; leave out compile and dtype.'
            )

    def changed(self, **values: str) -> 'Form':
        """Return this form with some values given as text.

        Args:
            **values (str): Text by name of the value.

        Returns:
            Form: The new form.

        Raises:
            ValueError: A name or a value is unknown.
        """
        read = {}
        for name, text in values.items():
            if name not in self.__dataclass_fields__:
                raise ValueError(
                    f'{name!r} is no option of a network; allowed: '
                    f'{", ".join(self.__dataclass_fields__)}.'
                )
            read[name] = text
            if isinstance(getattr(self, name), bool):
                if text.lower() not in _YES + _NO:
                    raise ValueError(f'{name} must be yes or no, got {text}.')
                read[name] = text.lower() in _YES
            elif name in _OPTIONAL and text.lower() in _NO:
                read[name] = None
            elif name == 'chunk':
                if not text.isdecimal() or int(text) < 2:
                    raise ValueError(f'chunk must be 2 or more, got {text}.')
                read[name] = int(text)
        return replace(self, **read)


@dataclass(frozen=True)
class Request:
    """A network that was asked for.

    Args:
        label (str): What the user wrote.
        kind (str): One of :data:`KINDS`.
        network (str): Name or path within the kind.
        size (tuple[int, int], optional): Height and width in pixels.
        form (Form): How to run it.
    """

    label: str
    kind: str
    network: str
    size: tuple[int, int] | None
    form: Form

    @property
    def key(self) -> str:
        """Kind and network, without size and options."""
        return f'{self.kind}:{self.network}'

    @property
    def published(self) -> Published | None:
        """What is published of the network at this size."""
        entry = PUBLISHED.get(self.key)
        side = (entry.size, entry.size) if entry else None
        return entry if self.size in (None, side) else None


def parse_request(text: str, form: Form | None = None) -> Request:
    """Read the name of a network.

    Args:
        text (str): ``KIND:NETWORK@SIZE,KEY=VALUE,...``, where the kind may
            be left out of a path, the size and options altogether.
        form (Form, optional): What options are not given. Defaults to None,
            which is that of :class:`Form`.

    Returns:
        Request: What was asked for; nothing is built or opened.

    Raises:
        ValueError: The text is no such name.
    """
    name, *options = text.split(',')
    values = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not equals:
            raise ValueError(
                f'{text}: options are written KEY=VALUE, got {option!r}.'
            )
        values[key.strip()] = value.strip()
    name, _, side = name.partition('@')
    kind, colon, network = name.partition(':')
    if not colon:
        kind, network = _SUFFIXES.get(os.path.splitext(name)[1], ''), name
    if kind not in KINDS or not network:
        raise ValueError(
            f'{text} names no network; write KIND:NETWORK with one of '
            f'{", ".join(KINDS)}, as in mobilemamba:b1@256, or the path '
            f'of a config.{near(name, PUBLISHED)}'
        )
    try:
        form = (form or Form()).changed(**values)
        size = _read_size(side)
    except ValueError as error:
        raise ValueError(f'{text}: {error}') from None
    return Request(text, kind, network, size, form)


def near(name: str, names: Iterable[str]) -> str:
    """Return a sentence with the names most like a wrong one.

    Args:
        name (str): What was not found.
        names (Iterable[str]): What there is.

    Returns:
        str: The sentence behind a space, or nothing.
    """
    found = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f' Did you mean {", ".join(found)}?' if found else ''


def _read_size(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    found = re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', text)
    if not found:
        raise ValueError(
            f'a size is SIDE or HEIGHTxWIDTH in pixels, got {text!r}.'
        )
    return int(found[1]), int(found[2] or found[1])

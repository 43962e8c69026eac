"""How a model is exported, and what its config says of that."""

from dataclasses import dataclass, replace

from mmengine.config import Config

from ..apis.options import innermost_dataset
from .graph import check_opset
from .parity import TOLERANCE
from .scan import FORMS

MIN_SIDE = 32  # pixels, of the backbone
_KINDS = dict(mmdet='detector', mmseg='segmentor', mmpretrain='classifier')


@dataclass
class ExportOptions:
    """How a model is exported.

    Args:
        opset (int): ONNX operators, 17 to 21. Defaults to 17.
        size (tuple[int], optional): Height and width in pixels, of every
            picture where the size is fixed, of the traced one where it is
            free. Defaults to None, that of the config's test pipeline.
        dynamic_size (bool): Leave the size free. Defaults to False.
        batch (int): Pictures of a batch. Defaults to 1.
        dynamic_batch (bool): Leave the batch free. Defaults to False.
        preprocess (bool): Take uint8 pixels as OpenCV reads them; mean, std
            and channel order are inside. Defaults to False.
        backbone (bool): Export the maps of the backbone alone. Defaults to
            False.
        argmax (bool): Give a segmentor's labels instead of its scores.
            Defaults to False.
        fixed_count (bool): Give as many boxes as the config keeps at most.
            Defaults to False.
        deploy (bool): Fuse the backbone. Defaults to True.
        form (str): Form of the scan, see
            :func:`mmmobilemamba.deploy.scan.linear_recurrence`. Defaults to
            ``'chunked'``.
        chunk (int, optional): Tokens of a chunk. Defaults to None, what suits
            the length.
        tolerance (float): Largest relative error. Defaults to 1e-4.
    """

    opset: int = 17
    size: tuple[int, int] | None = None
    dynamic_size: bool = False
    batch: int = 1
    dynamic_batch: bool = False
    preprocess: bool = False
    backbone: bool = False
    argmax: bool = False
    fixed_count: bool = False
    deploy: bool = True
    form: str = 'chunked'
    chunk: int | None = None
    tolerance: float = TOLERANCE

    def check_ranges(self) -> None:
        """Raise ValueError where an option is out of range."""
        check_opset(self.opset)
        if self.form not in FORMS:
            raise ValueError(
                f'form must be one of {FORMS}, got {self.form!r}.'
            )
        if self.form == 'doubling' and self.dynamic_size:
            raise ValueError(
                "form='doubling' needs a fixed size; take 'chunked' or "
                "'scan', or leave out --dynamic-size."
            )
        if self.chunk is not None and self.chunk < 2:
            raise ValueError(f'chunk must be 2 or more, got {self.chunk}.')
        if self.batch < 1:
            raise ValueError(f'batch must be 1 or more, got {self.batch}.')
        if self.size is not None and min(self.size) < MIN_SIDE:
            raise ValueError(
                f'size must be {MIN_SIDE}x{MIN_SIDE} pixels or more, got '
                f'{self.size[0]}x{self.size[1]}.'
            )
        if self.tolerance <= 0:
            raise ValueError(
                f'tolerance must be positive, got {self.tolerance}.'
            )

    def check(self, kind: str) -> None:
        """Raise ValueError where an option is none of this kind of model."""
        self.check_ranges()
        for name, wanted in (
            ('argmax', 'segmentor'),
            ('fixed_count', 'detector'),
        ):
            if getattr(self, name) and kind != wanted:
                raise ValueError(f'{name} is for a {wanted}, not a {kind}.')


def kind_of(cfg: Config) -> str:
    """Tell what a config describes.

    Args:
        cfg (Config): Config of one of the three libraries.

    Returns:
        str: ``'classifier'``, ``'segmentor'`` or ``'detector'``.

    Raises:
        ValueError: It is of none of them.
    """
    scope = cfg.get('default_scope')
    if scope not in _KINDS:
        raise ValueError(
            f'default_scope must be one of {", ".join(_KINDS)}, got {scope!r}.'
        )
    return _KINDS[scope]


def test_size(cfg: Config) -> tuple[int, int]:
    """Read the size of a test picture from a config.

    Args:
        cfg (Config): Config with a test pipeline.

    Returns:
        tuple[int, int]: Height and width in pixels.

    Raises:
        ValueError: The pipeline does not say it.
    """
    size = None
    for step in innermost_dataset(cfg.test_dataloader.dataset).pipeline:
        for key in ('scale', 'crop_size'):
            value = step.get(key)
            if isinstance(value, int):
                size = (value, value)
            elif isinstance(value, (tuple, list)) and len(value) == 2:
                # widths come first, and crops are square
                size = (value[1], value[0])
    if size is None or min(size) < 1:
        raise ValueError(
            "The config's test pipeline does not say the size of a picture; "
            'pass --size HEIGHT WIDTH.'
        )
    return size


def with_size(options: ExportOptions, cfg: Config, kind: str) -> ExportOptions:
    """Take the size from a config where the options have none.

    Args:
        options (ExportOptions): Options, left as they are.
        cfg (Config): Config with a test pipeline.
        kind (str): Kind of the model.

    Returns:
        ExportOptions: Options with a size, checked.

    Raises:
        ValueError: The pipeline does not say it, or it is too small.
    """
    if options.size is None:
        options = replace(options, size=test_size(cfg))
    options.check(kind)
    return options

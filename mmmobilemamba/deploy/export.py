"""Exporting a model of any of the three libraries to ONNX, with proof."""

import io
import os
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..utils.files import whole_file
from ..utils.inference import find_images, load_model, read_image
from ..utils.run_setup import innermost_dataset
from . import graph
from .modules import make_exportable
from .networks import (
    Backbone,
    Classifier,
    Network,
    Preprocess,
    Segmentor,
    preprocess_settings,
)
from .parity import TOLERANCE, Comparison, compare
from .scan import CHUNK, FORMS
from .session import Session

MIN_SIDE = 32  # pixels, of the backbone
MAX_IMAGES = 8  # that a parity check looks at
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
        chunk (int): Tokens of a chunk. Defaults to that of the module.
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
    chunk: int = CHUNK
    tolerance: float = TOLERANCE

    def check_ranges(self) -> None:
        """Raise ValueError where an option is out of range."""
        graph.check_opset(self.opset)
        if self.form not in FORMS:
            raise ValueError(
                f'form must be one of {FORMS}, got {self.form!r}.'
            )
        if self.form == 'doubling' and self.dynamic_size:
            raise ValueError(
                "form='doubling' needs a fixed size; take 'chunked' or "
                "'scan', or leave out --dynamic-size."
            )
        if self.chunk < 2:
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


@dataclass
class Report:
    """What was written and how well it agrees.

    Args:
        path (Path): File.
        nodes (int): Operators of the graph.
        size_mb (float): Size of the file in 10^6 bytes.
        comparisons (list[Comparison]): One per batch of pictures.
    """

    path: Path
    nodes: int
    size_mb: float
    comparisons: list[Comparison] = field(default_factory=list)

    def __str__(self) -> str:
        return '\n'.join(
            [
                *map(str, self.comparisons),
                f'{self.path}: {self.nodes} operators, {self.size_mb:.1f} MB',
            ]
        )


class ParityError(ValueError):
    """An exported network that does not compute what its model does."""


def export_onnx(
    cfg: Config,
    checkpoint: str,
    out: str | os.PathLike,
    options: ExportOptions | None = None,
    images: str | os.PathLike | None = None,
) -> Report:
    """Export the model of a config, and prove that it computes the same.

    Args:
        cfg (Config): Config of MMDetection, MMSegmentation or MMPretrain.
        checkpoint (str): Checkpoint of its model.
        out (str or PathLike): File to write, ending in ``.onnx``; whole and
            proven, or not at all.
        options (ExportOptions, optional): How. Defaults to None, which takes
            all defaults.
        images (str or PathLike, optional): Picture, or folder of pictures,
            to compare on besides random ones. Defaults to None.

    Returns:
        Report: What was written.

    Raises:
        FileNotFoundError: The checkpoint or the pictures do not exist.
        ValueError: An option, the checkpoint or the model does not fit.
        ParityError: The file would compute something else.
    """
    options = options or ExportOptions()
    kind = 'backbone' if options.backbone else _kind_of(cfg)
    options.check(kind)
    if not str(out).endswith('.onnx'):
        raise ValueError(f'out must end in .onnx, got {out}.')
    pictures = _read_images(images)
    if options.size is None:
        options = deepcopy(options)
        options.size = test_size(cfg)
        options.check(kind)
    model = load_model(cfg, checkpoint, 'cpu')
    return export_model(model, kind, out, options, pictures)


def export_model(
    model: nn.Module,
    kind: str,
    out: str | os.PathLike,
    options: ExportOptions,
    pictures: Sequence[tuple[str, np.ndarray]] = (),
) -> Report:
    """Export a model that is built and filled.

    Args:
        model (nn.Module): Model of a host library, on the CPU, in evaluation
            mode; it is left as it is.
        kind (str): ``'backbone'``, ``'classifier'``, ``'segmentor'`` or
            ``'detector'``.
        out (str or PathLike): File to write.
        options (ExportOptions): How; ``size`` is given.
        pictures (Sequence): Names and BGR pixels of pictures to compare on.
            Defaults to none.

    Returns:
        Report: What was written.

    Raises:
        ValueError: The model is of a kind that cannot be exported.
        ParityError: The file would compute something else.
    """
    metadata = _metadata(model, kind, options)
    network = _network(model, kind, options, metadata)
    proto = graph.finish(_trace(network, options), options.opset, metadata)
    outputs = [o for o in proto.graph.output if o.name in network.output_names]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    with whole_file(out) as draft:
        onnx.save(proto, draft)
        comparisons = _prove(model, draft, options, pictures)
        size_mb = draft.stat().st_size / 1e6
    return Report(Path(out), len(proto.graph.node), size_mb, comparisons)


def _kind_of(cfg: Config) -> str:
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


def _read_images(folder) -> list[tuple[str, np.ndarray]]:
    if folder is None:
        return []
    paths = find_images(folder)[:MAX_IMAGES]
    return [(path.name, read_image(path)) for path in paths]


def _metadata(model: nn.Module, kind: str, options: ExportOptions) -> dict:
    classes = getattr(model, 'dataset_meta', {}).get('classes')
    metadata = dict(
        kind=kind,
        size=None if options.dynamic_size else list(options.size),
        batch=None if options.dynamic_batch else options.batch,
        min_size=MIN_SIDE,
        preprocess=options.preprocess,
        normalize=preprocess_settings(model),
        classes=list(classes) if classes else None,
        traced_size=list(options.size),
        form=options.form,
        precision='float32',
    )
    if kind == 'detector' and model.with_mask:
        metadata['mask_threshold'] = model.roi_head.test_cfg.mask_thr_binary
    if kind == 'segmentor':
        metadata['align_corners'] = model.align_corners
        metadata['threshold'] = getattr(model.decode_head, 'threshold', None)
    return metadata


def _network(
    model: nn.Module, kind: str, options: ExportOptions, metadata: dict
) -> Network:
    """Return a copy of a model in the form in which it is traced."""
    fixed_size = not options.dynamic_size
    model = deepcopy(model)
    if options.deploy and hasattr(model.backbone, 'switch_to_deploy'):
        model.backbone.switch_to_deploy()
    make_exportable(model, fixed_size, form=options.form, chunk=options.chunk)
    normalize = metadata['normalize']
    preprocess: nn.Module = nn.Identity()
    if options.preprocess:
        preprocess = Preprocess(normalize)
    common = (model, preprocess, fixed_size)
    if kind == 'backbone':
        network: Network = Backbone(*common)
    elif kind == 'classifier':
        network = Classifier(*common)
    elif kind == 'segmentor':
        network = Segmentor(*common, argmax=options.argmax)
    else:
        # Imports MMDetection, which the others do without.
        from .detectors import wrap_detector

        network = wrap_detector(
            *common,
            divisor=normalize['pad_divisor'],
            fixed_count=options.fixed_count,
        )
    return network.eval().requires_grad_(False)


def _trace(network: Network, options: ExportOptions) -> onnx.ModelProto:
    axes: dict[str, dict[int, str]] = {}
    names = ('image', *network.output_names, *network.inner_names)
    free = ({2: 'height', 3: 'width'}, *network.dynamic)
    for name, sides in zip(names, free, strict=True):
        axes[name] = {}
        if options.dynamic_batch:
            axes[name][0] = 'batch'
        for axis, label in sides.items():
            if options.dynamic_size or label.endswith('count'):
                axes[name][axis] = label
    image = random_image(options, options.size, seed=0)
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of every shape that becomes a number, and prints
        # the whole graph where it fails.
        warnings.simplefilter('ignore')
        try:
            with redirect_stdout(io.StringIO()):
                torch.onnx.export(
                    network,
                    (image,),
                    file,
                    dynamo=False,
                    opset_version=min(options.opset, graph.TRACED_OPSET),
                    input_names=['image'],
                    output_names=list(names[1:]),
                    dynamic_axes=axes,
                    custom_opsets={graph.DOMAIN: 1},
                )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error).partition('\n')[0]
            raise ValueError(
                f'{type(network.model).__name__} cannot be traced: {reason}'
            ) from error
    return onnx.load_model_from_string(file.getvalue())


def random_image(
    options: ExportOptions, size: tuple[int, int], seed: int
) -> Tensor:
    """Make pictures of smooth noise, as a network takes them.

    Args:
        options (ExportOptions): Tells the batch and the type.
        size (tuple[int]): Height and width in pixels.
        seed (int): Seed of the noise.

    Returns:
        Tensor: (batch, 3, height, width), uint8 where the preprocessing is
        inside, else with mean 0 and deviation near 1.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = (options.batch, 3, -(-size[0] // 8), -(-size[1] // 8))
    noise = nn.functional.interpolate(
        torch.randn(coarse, generator=generator), size=size, mode='bilinear'
    )
    fine = torch.randn((options.batch, 3, *size), generator=generator)
    noise = noise + 0.3 * fine
    if options.preprocess:
        return (noise * 60 + 120).clamp(0, 255).to(torch.uint8)
    return noise


def check_sizes(options: ExportOptions) -> list[tuple[int, int]]:
    """Return the sizes on which an export is compared.

    Args:
        options (ExportOptions): With the traced size.

    Returns:
        list[tuple[int, int]]: Three sizes, two of them odd, where the size
        is free, else the one that is allowed.
    """
    height, width = options.size
    if not options.dynamic_size:
        return [(height, width)]
    smaller = (
        max(height * 2 // 3, MIN_SIDE) | 1,
        max(width // 2, MIN_SIDE) | 1,
    )
    larger = (height + 13 | 1, width + height // 4 + 6)
    return [(height, width), smaller, larger]


def _prove(
    model: nn.Module,
    path: Path,
    options: ExportOptions,
    pictures: Sequence[tuple[str, np.ndarray]],
) -> list[Comparison]:
    """Compare a written file with its model; raise where it differs."""
    session = Session(path)
    sizes = check_sizes(options)
    # A fixed size leaves one: other noise instead.
    jobs = [
        ('noise', random_image(options, sizes[i % len(sizes)], seed=i + 1))
        for i in range(3)
    ]
    for i, (name, pixels) in enumerate(pictures):
        size = sizes[i % len(sizes)]
        image = picture_as_input(pixels, size, session.metadata, options.batch)
        jobs.append((name, image))
    comparisons = [
        compare(name, model, session, image, options.tolerance)
        for name, image in jobs
    ]
    wrong = [c for c in comparisons if c.problems]
    if wrong:
        found = '\n'.join(map(str, comparisons))
        raise ParityError(
            'The exported network does not agree with its model at '
            f'{len(wrong)} of {len(comparisons)} pictures, so that no file '
            f'was written:\n{found}'
        )
    return comparisons


def picture_as_input(
    pixels: np.ndarray, size: tuple[int, int], metadata: dict, batch: int
) -> Tensor:
    """Turn BGR pixels into a batch of the size and type that is taken.

    Args:
        pixels (np.ndarray): BGR pixels, uint8, (height, width, 3).
        size (tuple[int]): Height and width to resize to, in pixels.
        metadata (dict): The exported network's.
        batch (int): How often the picture stands in the batch.

    Returns:
        Tensor: (batch, 3, *size), uint8 where the preprocessing is inside,
        else normalised float32.
    """
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    image = nn.functional.interpolate(
        image, size=size, mode='bilinear', antialias=True
    )
    image = image.round().clamp(0, 255).to(torch.uint8)
    image = image.expand(batch, -1, -1, -1)
    if not metadata['preprocess']:
        image = Preprocess(metadata['normalize'])(image)
    return image.contiguous()

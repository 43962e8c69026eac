"""Building the networks that a benchmark times."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..apis.config import load_config
from ..ops import ENV_NAME, scan_backend
from .dense import backbone_and_neck, predict_dense, run_on_maps
from .input_shapes import usual_shape
from .published import PUBLISHED
from .requests import Request, near

NUM_CLASSES = 1000


@dataclass
class Candidate:
    """A network that is ready to be prepared and timed.

    Args:
        size (tuple[int, int]): Height and width of its pictures in pixels.
        module (nn.Module, optional): The network in evaluation mode, as
            trained; None where a runtime of its own computes it, which then
            keeps its form.
        forward (Callable): Called with module and pictures (batch, 3, H, W);
            what is timed. Defaults to calling the module.
        probe (Callable): The same without what depends on values, such as
            the suppression of boxes; shows which layers read which. Defaults
            to calling the module.
        compiled (Callable): Gives the parts to compile. Defaults to the
            module.
        convert (Callable): Turns pictures into what ``forward`` takes; not
            timed. Defaults to leaving them.
        is_classifier (bool): Whether the output is one row of scores per
            picture, which a training can be timed with. Defaults to True.
        exported (Callable, optional): Gives the file of a batch size, where
            a runtime of its own computes the network. Defaults to None.
    """

    size: tuple[int, int]
    module: nn.Module | None
    forward: Callable = lambda module, x: module(x)
    probe: Callable = lambda module, x: module(x)
    compiled: Callable = lambda module: [module]
    convert: Callable = lambda x: x
    is_classifier: bool = True
    exported: Callable[[int], Path] | None = None


def build_candidate(request: Request) -> Candidate:
    """Build a network with random weights.

    Args:
        request (Request): What :func:`parse_request` gave.

    Returns:
        Candidate: The network on the CPU, in evaluation mode, as trained.

    Raises:
        ValueError: There is no such network, or the size is missing.
        ImportError: The library that it comes from is missing.
        FileNotFoundError: There is no such file.
    """
    torch.manual_seed(0)
    with _backend(request.form.backend):
        candidate = BUILDERS[request.kind](request)
    if candidate.module is not None:
        candidate.module.eval()
    return candidate


class Classifier(nn.Module):
    """MobileMamba as published for ImageNet, of torch's layers alone.

    Args:
        backbone (nn.Module): Gives a tuple of maps, of which the last is
            read.
        channels (int): Channels of that map.
        num_classes (int): Defaults to 1000.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        num_classes: int = NUM_CLASSES,
    ):
        super().__init__()
        self.backbone = backbone
        self.norm = nn.BatchNorm1d(channels)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (batch, 3, H, W) to scores (batch, num_classes)."""
        return self.fc(self.norm(self.backbone(x)[-1].mean((2, 3))))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fuse the backbone and fold the norm into the linear layer."""
        self.backbone.switch_to_deploy()
        if isinstance(self.norm, nn.Identity):
            return
        scale = (
            self.norm.weight / (self.norm.running_var + self.norm.eps) ** 0.5
        )
        shift = self.norm.bias - self.norm.running_mean * scale
        self.fc.bias += self.fc.weight @ shift
        self.fc.weight *= scale
        self.norm = nn.Identity()


class ScanAlone(nn.Module):
    """The gated scan of a stage with its projections, and nothing else.

    Args:
        dim (int): Channels of its map.
    """

    def __init__(self, dim: int):
        super().__init__()
        from ..models.layers.mixer import GlobalPath

        # What makes channels of a picture costs next to nothing.
        self.channels = nn.Conv2d(3, dim, 1)
        self.path = GlobalPath(dim, 3, wavelet_levels=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (batch, 3, H, W) to (batch, dim, H, W)."""
        return self.path(self.channels(x))

    def switch_to_deploy(self) -> None:
        """Fuse norms and scales."""
        for part in reversed(list(self.path.modules())):
            if hasattr(part, 'switch_to_deploy'):
                part.switch_to_deploy()


def _build_mobilemamba(request: Request) -> Candidate:
    from ..models.backbones import MobileMamba
    from ..models.backbones.arch import ARCH_SETTINGS

    arch = request.network.lower()
    if arch not in ARCH_SETTINGS:
        raise ValueError(
            f'{request.label}: the variants are {", ".join(ARCH_SETTINGS)}; '
            'one of your own is timed through a config.'
        )
    side = PUBLISHED[f'mobilemamba:{arch}'].size
    backbone = MobileMamba(arch, out_indices=(2,))
    return Candidate(
        size=request.size or (side, side),
        module=Classifier(backbone, backbone.out_channels[-1]),
    )


def _build_timm(request: Request) -> Candidate:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f'{request.label} needs timm: `pip install timm`.'
        ) from error
    name = request.network
    if not timm.is_model(name):
        raise ValueError(
            f'{request.label}: timm {timm.__version__} has no network '
            f'{name!r}.{near(name, timm.list_models())}'
        )
    config = timm.get_pretrained_cfg(name)
    usual = tuple(config.input_size[1:]) if config else (224, 224)
    size = request.size or usual
    # Networks of one size hold tables for it; the rest take any picture.
    fixed = config is not None and config.fixed_input_size
    options = dict(img_size=size) if fixed and size != usual else {}
    module = timm.create_model(
        name, pretrained=False, num_classes=NUM_CLASSES, **options
    )
    return Candidate(size=size, module=module)


def _build_config(request: Request) -> Candidate:
    from ..apis.inference import build_model

    cfg = load_config(request.network)
    size = request.size or usual_shape(cfg)
    module = build_model(cfg)
    if cfg.default_scope == 'mmpretrain':
        return Candidate(size=size, module=module)
    return Candidate(
        size=size,
        module=module,
        forward=predict_dense,
        probe=run_on_maps,
        compiled=backbone_and_neck,
        is_classifier=False,
    )


def _build_onnx(request: Request) -> Candidate:
    # Needs onnx and onnxruntime, which only this kind does.
    from ..deploy.session import Session, read_exported

    graph, metadata = read_exported(request.network)
    size = request.size or metadata['size']
    if not size:
        raise ValueError(
            f'{request.label}: the file takes pictures of any size; say '
            f'which, as in {request.network}@224.'
        )
    uint8 = graph.input[0].type.tensor_type.elem_type == 2

    @cache
    def session() -> Session:
        runtime = request.form.runtime or 'onnxruntime'
        return Session(request.network, runtime, torch.get_num_threads())

    def convert(x: Tensor) -> np.ndarray:
        if uint8:
            x = (x * 64 + 128).clamp(0, 255)  # pixels, preprocessed within
        return x.numpy().astype('uint8' if uint8 else 'float32')

    return Candidate(
        size=tuple(size),
        module=None,
        forward=lambda module, x: session()(x),
        convert=convert,
        is_classifier=False,
        exported=lambda batch: Path(request.network),
    )


def _build_scan(request: Request) -> Candidate:
    name = request.network
    if not name.isdecimal() or int(name) < 1 or not request.size:
        raise ValueError(
            f'{request.label}: a scan is named by its channels and the size '
            'of its map, as in scan:160@14.'
        )
    return Candidate(
        size=request.size, module=ScanAlone(int(name)), is_classifier=False
    )


BUILDERS: dict[str, Callable[[Request], Candidate]] = {
    'mobilemamba': _build_mobilemamba,
    'timm': _build_timm,
    'config': _build_config,
    'onnx': _build_onnx,
    'scan': _build_scan,
}


@contextmanager
def _backend(name: str | None) -> Iterator[None]:
    """Let networks that are built within take a scan backend."""
    before = os.environ.get(ENV_NAME)
    if name is not None:
        os.environ[ENV_NAME] = name
    try:
        scan_backend()  # says what is wrong with the choice
        yield
    finally:
        if name is not None:
            if before is None:
                del os.environ[ENV_NAME]
            else:
                os.environ[ENV_NAME] = before

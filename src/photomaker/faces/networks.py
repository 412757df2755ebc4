"""The small networks for faces, and the file format of networks with a `config`.

All begin with a patch stem of stride 4 or more: on CPUs, convolutions at full resolution with few channels cost the
most time and help least.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from photomaker.errors import WeightsError
from photomaker.outside import read_object


class ConfiguredNetwork(nn.Module, ABC):
    """A network that a frozen dataclass of plain values describes in full.

    Attributes:
        architecture: Name of the architecture in files.
        config: The sizes; `type(network)(network.config)` is an untrained network of the same shape.
    """

    architecture: ClassVar[str]
    config: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @classmethod
    @abstractmethod
    def from_values(cls, values: Mapping[str, Any]) -> ConfiguredNetwork:
        """Build an untrained network from the values of its `config` as JSON gives them back."""


def save_network(network: ConfiguredNetwork, path: Path) -> Path:
    """Write a network in half precision as one safetensors file, atomically.

    The metadata key `config` holds JSON: `architecture` and the values of `network.config`.
    """
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    config = {"architecture": network.architecture, **asdict(network.config)}
    # Keys keep their order: the heads of a classifier are distinguished by it.
    data = save(tensors, metadata={"config": json.dumps(config)})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
    return path


def load_network(path: Path, *kinds: type[ConfiguredNetwork]) -> ConfiguredNetwork:
    """Read a file that `save_network` wrote.

    Args:
        path: The file.
        kinds: The architectures that will do.

    Returns:
        The network in float32, in evaluation mode, its parameters frozen.

    Raises:
        WeightsError: The file is missing, damaged or holds another architecture.
    """
    config, tensors = _read(path)
    by_name = {kind.architecture: kind for kind in kinds}
    architecture = config.pop("architecture", None)
    if architecture not in by_name:
        raise WeightsError(
            f"{path} holds the architecture {architecture!r}, not {' or '.join(sorted(by_name))}; use another file"
        )
    try:
        network = by_name[architecture].from_values(config)
        network.load_state_dict(tensors)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(
            f"the weights in {path} do not fit their own config; download the file again"
        ) from error
    return network.float().eval().requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read config and tensors, refusing what is missing, damaged or not finite."""
    if not path.is_file():
        raise WeightsError(f"there is no model file {path}; install the package again or give another path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        config = read_object(metadata["config"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} is not a model file of photomaker, or is damaged; download it again"
        ) from error
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken or not isinstance(config, dict):
        raise WeightsError(
            f"{path} is damaged ({broken[0] if broken else 'config'} is not usable); download it again"
        )
    return config, tensors


def convolution(
    inside: int, outside: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A convolution that keeps or divides the size, batch normalisation, ReLU."""
    padding = kernel // 2 * dilation if stride == 1 else (kernel - stride + 1) // 2
    layer = nn.Conv2d(inside, outside, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.ReLU())


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation around a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        """Build for a number of channels."""
        super().__init__()
        self.inner = nn.Sequential(
            convolution(channels, channels, dilation=dilation),
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, height, width] to the same shape."""
        return torch.relu(x + self.inner(x))


def residual_trunk(channels: tuple[int, ...], depths: tuple[int, ...]) -> nn.Sequential:
    """Patch stem of stride 4, then residual stages, each at half the size of the one before."""
    layers: list[nn.Module] = [convolution(3, channels[0], kernel=7, stride=4)]
    for stage, (width, depth) in enumerate(zip(channels, depths, strict=True)):
        if stage:
            layers.append(convolution(channels[stage - 1], width, kernel=3, stride=2))
        layers.extend(Residual(width) for _ in range(depth))
    return nn.Sequential(*layers)


def centred(images: Tensor) -> Tensor:
    """Bring pictures from 0..1 to -1..1."""
    return images * 2 - 1


class FaceEmbedder(ConfiguredNetwork):
    """Base of the recognisers: crops in, embeddings out. `config` has `size` and `width`."""

    @abstractmethod
    def features(self, crops: Tensor) -> Tensor:
        """Map [batch, 3, size, size] crops in 0..1 to [batch, width] embeddings of any length, for training."""

    def forward(self, crops: Tensor) -> Tensor:
        """Map [batch, 3, size, size] crops in 0..1 to [batch, width] embeddings of length 1."""
        return functional.normalize(self.features(crops).float(), dim=-1)


@dataclass(frozen=True)
class ConvConfig:
    """Sizes of `ConvRecogniser`: input side, embedding width, channels and residual blocks of each stage."""

    size: int = 96
    width: int = 128
    channels: tuple[int, ...] = (40, 80, 128)
    depths: tuple[int, ...] = (1, 2, 1)


class ConvRecogniser(FaceEmbedder):
    """The recogniser behind the likeness scores users see: a residual network.

    A depthwise convolution over the whole last map weighs places instead of averaging them, as in MobileFaceNets
    (arXiv 1804.07573): a crop around a face has its eyes always in about the same place.
    """

    architecture = "conv-recogniser"

    def __init__(self, config: ConvConfig | None = None) -> None:
        """Build untrained."""
        super().__init__()
        self.config = config or ConvConfig()
        channels, last = self.config.channels, self.config.channels[-1]
        cells = self.config.size // (4 * 2 ** (len(channels) - 1))
        self.trunk = residual_trunk(channels, self.config.depths)
        self.weigh = nn.Sequential(
            nn.Conv2d(last, last, cells, groups=last, bias=False), nn.BatchNorm2d(last)
        )
        self.project = nn.Sequential(
            nn.Flatten(), nn.Linear(last, self.config.width), nn.BatchNorm1d(self.config.width, affine=False)
        )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ConvRecogniser:
        """Build from JSON values."""
        return cls(ConvConfig(**_tuples(values)))

    def features(self, crops: Tensor) -> Tensor:
        """See `FaceEmbedder.features`."""
        return self.project(self.weigh(self.trunk(centred(crops))))


@dataclass(frozen=True)
class MixerConfig:
    """Sizes of `MixerRecogniser`: input side, embedding width, patch stride, token width, blocks, hidden widths."""

    size: int = 96
    width: int = 128
    patch: int = 8
    channels: int = 128
    blocks: int = 6
    token_hidden: int = 72
    channel_hidden: int = 288


class MixerBlock(nn.Module):
    """One MLP across places and one across channels (MLP-Mixer, arXiv 2105.01601)."""

    def __init__(self, config: MixerConfig) -> None:
        """Build untrained."""
        super().__init__()
        tokens = (config.size // config.patch) ** 2
        self.norm_tokens, self.norm_channels = nn.LayerNorm(config.channels), nn.LayerNorm(config.channels)
        self.tokens = _mlp(tokens, config.token_hidden)
        self.channels = _mlp(config.channels, config.channel_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, tokens, channels] to the same shape."""
        x = x + self.tokens(self.norm_tokens(x).mT).mT
        return x + self.channels(self.norm_channels(x))


class MixerRecogniser(FaceEmbedder):
    """The recogniser used for evaluation only: no convolution beyond its patch stem, no batch statistics.

    Made as different as possible from `ConvRecogniser`, so that the two do not share their faults.
    """

    architecture = "mixer-recogniser"

    def __init__(self, config: MixerConfig | None = None) -> None:
        """Build untrained."""
        super().__init__()
        self.config = config or MixerConfig()
        channels, patch = self.config.channels, self.config.patch
        # Patches overlap by half, or a shift of a few pixels would change every token.
        self.stem = nn.Conv2d(3, channels, patch + patch // 2, patch, padding=patch // 4)
        self.blocks = nn.Sequential(*(MixerBlock(self.config) for _ in range(self.config.blocks)))
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Sequential(
            nn.Linear(channels, self.config.width), nn.LayerNorm(self.config.width, elementwise_affine=False)
        )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> MixerRecogniser:
        """Build from JSON values."""
        return cls(MixerConfig(**values))

    def features(self, crops: Tensor) -> Tensor:
        """See `FaceEmbedder.features`."""
        tokens = self.stem(centred(crops)).flatten(2).mT
        return self.project(self.norm(self.blocks(tokens)).mean(1))


@dataclass(frozen=True)
class NextConfig:
    """Sizes of `NextRecogniser`: input side, embedding width, channels and blocks of each stage, heads that pool."""

    size: int = 96
    width: int = 128
    channels: tuple[int, ...] = (48, 96, 160)
    blocks: tuple[int, ...] = (2, 3, 2)
    heads: int = 4


class NextBlock(nn.Module):
    """A wide depthwise convolution and an MLP at every place (ConvNeXt, arXiv 2201.03545)."""

    def __init__(self, channels: int) -> None:
        """Build untrained."""
        super().__init__()
        self.look = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), nn.GELU(), nn.Conv2d(2 * channels, channels, 1)
        )
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, h, w] to the same shape."""
        return x + self.scale * self.mlp(self.norm(self.look(x)))


class NextRecogniser(FaceEmbedder):
    """The third recogniser, for the last table alone: no network is trained with it, chosen by it or ranked by it.

    Depthwise convolutions without batch statistics, pooled by attention: unlike the two others, so that a likeness that
    was gained by pleasing one of them does not please this one.
    """

    architecture = "next-recogniser"

    def __init__(self, config: NextConfig | None = None) -> None:
        """Build untrained."""
        super().__init__()
        self.config = config or NextConfig()
        before, stages = 3, []
        for at, (channels, blocks) in enumerate(zip(self.config.channels, self.config.blocks, strict=True)):
            side = 4 if at == 0 else 2
            stages += [nn.Conv2d(before, channels, side, side), *(NextBlock(channels) for _ in range(blocks))]
            before = channels
        self.trunk = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(1, before)
        cells = self.config.size // (4 * 2 ** (len(self.config.channels) - 1))
        self.places = nn.Parameter(torch.zeros(self.config.heads, cells * cells))
        self.attend = nn.Conv2d(before, self.config.heads, 1)
        self.project = nn.Sequential(
            nn.Linear(before * self.config.heads, self.config.width),
            nn.LayerNorm(self.config.width, elementwise_affine=False),
        )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> NextRecogniser:
        """Build from JSON values."""
        return cls(NextConfig(**_tuples(values)))

    def features(self, crops: Tensor) -> Tensor:
        """See `FaceEmbedder.features`."""
        maps = self.norm(self.trunk(centred(crops)))
        weights = (self.attend(maps).flatten(2) + self.places).float().softmax(-1).to(maps.dtype)
        return self.project((weights @ maps.flatten(2).mT).flatten(1))


@dataclass(frozen=True)
class AnalyserConfig:
    """Sizes of `FaceAnalyser`: side of the square it sees, channels at strides 4, 8 and 16."""

    size: int = 160
    channels: tuple[int, int, int] = (24, 48, 64)


@dataclass(frozen=True)
class Analysis:
    """What `FaceAnalyser` says, before any threshold.

    Attributes:
        heat: [batch, 1, size / 8, size / 8] logits: a face has its centre in this cell.
        boxes: [batch, 4, size / 8, size / 8] logarithm of the distances from the middle of the cell to the box's left,
            top, right and bottom edge, in cells.
        landmarks: [batch, 10, size / 8, size / 8] five offsets (x, y) from the middle of the cell, in cells.
        mask: [batch, 1, size / 2, size / 2] logits: a person is here.
    """

    heat: Tensor
    boxes: Tensor
    landmarks: Tensor
    mask: Tensor

    def cpu(self) -> Analysis:
        """The same in float32 on the CPU."""
        return Analysis(*(maps.float().cpu() for maps in (self.heat, self.boxes, self.landmarks, self.mask)))


class FaceAnalyser(ConfiguredNetwork):
    """Face centres, boxes, five landmarks and a person mask from one small network.

    Faces as points of a heat map with sizes beside them: CenterNet (arXiv 1904.07850).
    """

    architecture = "face-analyser"
    stride: ClassVar[int] = 8

    def __init__(self, config: AnalyserConfig | None = None) -> None:
        """Build untrained."""
        super().__init__()
        self.config = config or AnalyserConfig()
        fine, middle, coarse = self.config.channels
        self.fine = residual_trunk((fine,), (1,))
        self.middle = nn.Sequential(convolution(fine, middle, stride=2), Residual(middle))
        # Dilation lets the coarse level see faces that fill the picture.
        self.coarse = nn.Sequential(
            convolution(middle, coarse, stride=2), Residual(coarse), Residual(coarse, dilation=2)
        )
        self.from_coarse = nn.Conv2d(coarse, middle, 1)
        self.join_middle = convolution(middle, middle)
        self.from_middle = nn.Conv2d(middle, fine, 1)
        self.join_fine = convolution(fine, fine)
        self.face = nn.Conv2d(middle, 15, 1)
        # Four logits a cell of stride 4 are shuffled to stride 2: finer outlines at no cost.
        self.person = nn.Sequential(nn.Conv2d(fine, 4, 1), nn.PixelShuffle(2))
        nn.init.zeros_(self.face.weight)
        nn.init.zeros_(self.face.bias)  # type: ignore[arg-type]
        # Most cells hold no face; starting at 2 % keeps the first steps calm (arXiv 1708.02002, section 3.3).
        nn.init.constant_(self.face.bias[:1], -4.0)  # type: ignore[index]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> FaceAnalyser:
        """Build from JSON values."""
        return cls(AnalyserConfig(**_tuples(values)))

    def forward(self, images: Tensor) -> Analysis:
        """Analyse [batch, 3, size, size] pictures in 0..1."""
        fine = self.fine(centred(images))
        middle = self.middle(fine)
        joined = self.join_middle(middle + _doubled(self.from_coarse(self.coarse(middle))))
        heat, boxes, landmarks = self.face(joined).split((1, 4, 10), dim=1)
        mask = self.person(self.join_fine(fine + _doubled(self.from_middle(joined))))
        return Analysis(heat, boxes, landmarks, mask)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where the configs have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

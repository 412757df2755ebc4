"""Distances between pictures in the features of a network: LPIPS, and its small relative for drawn people.

Source: Zhang et al., arXiv 1801.03924.
"""

from __future__ import annotations

import os
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from photomaker.errors import WeightsError
from photomaker.weights import read_tensors

if TYPE_CHECKING:
    from photomaker.faces.networks import ConvRecogniser

EPSILON = 1e-10
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# layers as torchvision numbers them: (in, out, kernel, stride, padding) is a convolution, "tap" a ReLU that is compared
ALEX: tuple[object, ...] = (
    (3, 64, 11, 4, 2), "tap", "pool3",
    (64, 192, 5, 1, 2), "tap", "pool3",
    (192, 384, 3, 1, 1), "tap",
    (384, 256, 3, 1, 1), "tap",
    (256, 256, 3, 1, 1), "tap",
)  # fmt: skip
VGG: tuple[object, ...] = (
    (3, 64, 3, 1, 1), "relu", (64, 64, 3, 1, 1), "tap", "pool2",
    (64, 128, 3, 1, 1), "relu", (128, 128, 3, 1, 1), "tap", "pool2",
    (128, 256, 3, 1, 1), "relu", (256, 256, 3, 1, 1), "relu", (256, 256, 3, 1, 1), "tap", "pool2",
    (256, 512, 3, 1, 1), "relu", (512, 512, 3, 1, 1), "relu", (512, 512, 3, 1, 1), "tap", "pool2",
    (512, 512, 3, 1, 1), "relu", (512, 512, 3, 1, 1), "relu", (512, 512, 3, 1, 1), "tap",
)  # fmt: skip
TRUNKS = {"alex": ALEX, "vgg": VGG}


class Lpips(nn.Module):
    """LPIPS: squared differences of unit-length features at five depths, weighed channel by channel.

    Args:
        trunk: "alex" or "vgg".
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: str = "alex") -> None:
        """Build untrained."""
        super().__init__()
        layers = TRUNKS[trunk]
        convolutions = [layer if isinstance(layer, tuple) else None for layer in layers]
        self.features = nn.ModuleList(
            [nn.Identity() if one is None else nn.Conv2d(*one) for one in convolutions]
        )
        self.steps = [layer if isinstance(layer, str) else "convolution" for layer in layers]
        widths, last = [], 0
        for step, convolution in zip(self.steps, convolutions, strict=True):
            last = convolution[1] if convolution else last
            if step == "tap":
                widths.append(last)
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in widths])
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)

    @classmethod
    def open(cls, trunk: str | os.PathLike[str], heads: str | os.PathLike[str]) -> Lpips:
        """Load the two files in which LPIPS is published; AlexNet and VGG-16 are distinguished by their shapes.

        Args:
            trunk: torchvision's `alexnet-owt-....pth` or `vgg16-....pth`.
            heads: The heads of LPIPS 0.1, `alex.pth` or `vgg.pth` of the package lpips.

        Raises:
            WeightsError: A file is missing or damaged, or the two do not belong together.
        """
        below, above = read_tensors(trunk), read_tensors(heads)
        first = below.get("features.0.weight")
        network = cls("vgg" if first is not None and first.shape[-1] == 3 else "alex")  # noqa: PLR2004
        try:
            convolutions = {
                name.removeprefix("features."): one
                for name, one in below.items()
                if name.startswith("features.")
            }
            network.features.load_state_dict(convolutions)
            weights = [above[f"lin{depth}.model.1.weight"].flatten() for depth in range(len(network.heads))]
            network.heads.load_state_dict({str(depth): one for depth, one in enumerate(weights)})
        except (RuntimeError, KeyError) as error:
            raise WeightsError(
                f"{trunk} and {heads} are no trunk and heads of LPIPS that belong together; "
                "give torchvision's alexnet or vgg16 and the file of the same name from the package lpips"
            ) from error
        return network.eval().requires_grad_(False)

    def taps(self, images: Tensor) -> list[Tensor]:
        """Features of pictures [batch, 3, height, width] in 0..1 at each depth, of unit length at every place."""
        x, found = (images * 2 - 1 - self.shift) / self.scale, []
        for step, layer in zip(self.steps, self.features, strict=True):
            if step == "convolution":
                x = layer(x)
            elif step in ("relu", "tap"):
                x = functional.relu(x)
            else:
                x = functional.max_pool2d(x, int(step[-1]), 2)
            if step == "tap":
                found.append(_unit(x))
        return found

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each pair of pictures, [batch] from 0 up."""
        pairs = zip(self.taps(first), self.taps(second), self.heads, strict=True)
        parts = [(((a - b) ** 2) * head[:, None, None]).sum(1).mean((1, 2)) for a, b, head in pairs]
        return torch.stack(parts).sum(0)


class SmallDistance(nn.Module):
    """LPIPS without trained heads, in the stages of the bundled small recogniser: for drawn people, and no LPIPS.

    d = mean over stages of the mean over places of |f - g|^2 / 2, f and g features of unit length; 0..2.
    """

    def __init__(self, network: ConvRecogniser) -> None:
        """Take the recogniser's trunk."""
        super().__init__()
        self.trunk = network.trunk.eval().requires_grad_(False)
        self.stages = _stages(network.trunk)

    @classmethod
    def open(cls) -> SmallDistance:
        """Take the trunk of the bundled recogniser.

        Raises:
            WeightsError: Its file is missing or altered.
        """
        from photomaker.faces.networks import ConvRecogniser, load_network
        from photomaker.weights import bundled

        network = load_network(bundled("faces/recogniser.safetensors"), ConvRecogniser)
        assert isinstance(network, ConvRecogniser)
        return cls(network)

    def taps(self, images: Tensor) -> list[Tensor]:
        """Features of pictures [batch, 3, height, width] in 0..1 after each stage, of unit length."""
        x, found = images * 2 - 1, []
        for place, layer in enumerate(self.trunk):
            x = layer(x)
            if place in self.stages:
                found.append(_unit(x))
        return found

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each pair of pictures, [batch] in 0..2."""
        pairs = zip(self.taps(first), self.taps(second), strict=True)
        parts = [((a - b) ** 2).sum(1).mean((1, 2)) / 2 for a, b in pairs]
        return torch.stack(parts).mean(0)


@torch.inference_mode()
def mean_pairwise(distance: nn.Module, images: Tensor) -> list[float]:
    """Mean distance of each picture to the others.

    Args:
        distance: `Lpips` or `SmallDistance`.
        images: [n, 3, height, width] in 0..1.

    Returns:
        n numbers, whose mean is the mean over all pairs; nan if there is only one picture.
    """
    count = len(images)
    if count < 2:  # noqa: PLR2004
        return [float("nan")] * count
    pairs = list(combinations(range(count), 2))
    first, second = images[[a for a, _ in pairs]], images[[b for _, b in pairs]]
    between = torch.zeros(count, count)
    for (a, b), value in zip(pairs, distance(first, second).tolist(), strict=True):
        between[a, b] = between[b, a] = value
    return [float(row.sum()) / (count - 1) for row in between]


def _unit(x: Tensor) -> Tensor:
    """Features of unit length at every place; the small number is where LPIPS has it."""
    return x / (x.pow(2).sum(1, keepdim=True).sqrt() + EPSILON)


def _stages(trunk: nn.Sequential) -> frozenset[int]:
    """The last layer before each halving of the maps, and the very last one."""
    halving = [place for place, layer in enumerate(trunk) if _halves(layer)]
    return frozenset({place - 1 for place in halving if place} | {len(trunk) - 1})


def _halves(layer: nn.Module) -> bool:
    return any(isinstance(one, nn.Conv2d) and one.stride != (1, 1) for one in layer.modules())

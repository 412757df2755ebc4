"""The Inception network behind FID and KID, in the layout of the weights that the field uses.

Written for `pt_inception-2015-12-05-6726825d.pth`, which pytorch-fid and torch-fidelity share: the TensorFlow
network of 2015 with its 1008 classes. It differs from today's Inception-v3 in three things, and every published FID
rests on them: average pooling counts no padding, the last block pools by maximum, and pictures are resized to 299.

Source: Szegedy et al., arXiv 1512.00567; Heusel et al., arXiv 1706.08500.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from photomaker.errors import WeightsError
from photomaker.images import to_tensor
from photomaker.weights import read_tensors

SIDE, WIDTH, CLASSES = 299, 2048, 1008
BATCH = 16
Size = int | tuple[int, int]


class Convolution(nn.Module):
    """A convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inside: int, outside: int, kernel: Size, stride: int = 1, padding: Size = 0) -> None:
        """Build untrained."""
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, inside, height, width] to [batch, outside, height', width']."""
        return functional.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Parallel branches, joined by their channels; convolutions are looked up under the names of the weight file.

    Args:
        parts: Name to the arguments of its `Convolution`.
        branches: Names in order for each branch; a name in a tuple stands beside its neighbours in the tuple, and
            `average`, `maximum` and `shrink` are poolings without weights.
    """

    def __init__(
        self, parts: dict[str, tuple[int, int, Size, int, Size]], branches: tuple[tuple[object, ...], ...]
    ) -> None:
        """Build untrained."""
        super().__init__()
        for name, sizes in parts.items():
            self.add_module(name, Convolution(*sizes))
        self.branches = branches

    def forward(self, x: Tensor) -> Tensor:
        """Map [batch, channels, height, width] to the joined channels."""
        return torch.cat([self._branch(x, steps) for steps in self.branches], 1)

    def _branch(self, x: Tensor, steps: tuple[object, ...]) -> Tensor:
        for step in steps:
            if isinstance(step, tuple):
                x = torch.cat([self.get_submodule(name)(x) for name in step], 1)
            elif step == "average":
                x = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            elif step == "maximum":
                x = functional.max_pool2d(x, 3, 1, 1)
            elif step == "shrink":
                x = functional.max_pool2d(x, 3, 2)
            else:
                assert isinstance(step, str)
                x = self.get_submodule(step)(x)
        return x


def _a(inside: int, pooled: int) -> Branches:
    return Branches(
        {
            "branch1x1": (inside, 64, 1, 1, 0),
            "branch5x5_1": (inside, 48, 1, 1, 0),
            "branch5x5_2": (48, 64, 5, 1, 2),
            "branch3x3dbl_1": (inside, 64, 1, 1, 0),
            "branch3x3dbl_2": (64, 96, 3, 1, 1),
            "branch3x3dbl_3": (96, 96, 3, 1, 1),
            "branch_pool": (inside, pooled, 1, 1, 0),
        },
        (
            ("branch1x1",),
            ("branch5x5_1", "branch5x5_2"),
            ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            ("average", "branch_pool"),
        ),
    )


def _b(inside: int) -> Branches:
    return Branches(
        {
            "branch3x3": (inside, 384, 3, 2, 0),
            "branch3x3dbl_1": (inside, 64, 1, 1, 0),
            "branch3x3dbl_2": (64, 96, 3, 1, 1),
            "branch3x3dbl_3": (96, 96, 3, 2, 0),
        },
        (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("shrink",)),
    )


def _c(inside: int, middle: int) -> Branches:
    row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return Branches(
        {
            "branch1x1": (inside, 192, 1, 1, 0),
            "branch7x7_1": (inside, middle, 1, 1, 0),
            "branch7x7_2": (middle, middle, *row),
            "branch7x7_3": (middle, 192, *column),
            "branch7x7dbl_1": (inside, middle, 1, 1, 0),
            "branch7x7dbl_2": (middle, middle, *column),
            "branch7x7dbl_3": (middle, middle, *row),
            "branch7x7dbl_4": (middle, middle, *column),
            "branch7x7dbl_5": (middle, 192, *row),
            "branch_pool": (inside, 192, 1, 1, 0),
        },
        (
            ("branch1x1",),
            ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
            tuple(f"branch7x7dbl_{number}" for number in range(1, 6)),
            ("average", "branch_pool"),
        ),
    )


def _d(inside: int) -> Branches:
    return Branches(
        {
            "branch3x3_1": (inside, 192, 1, 1, 0),
            "branch3x3_2": (192, 320, 3, 2, 0),
            "branch7x7x3_1": (inside, 192, 1, 1, 0),
            "branch7x7x3_2": (192, 192, (1, 7), 1, (0, 3)),
            "branch7x7x3_3": (192, 192, (7, 1), 1, (3, 0)),
            "branch7x7x3_4": (192, 192, 3, 2, 0),
        },
        (
            ("branch3x3_1", "branch3x3_2"),
            tuple(f"branch7x7x3_{number}" for number in range(1, 5)),
            ("shrink",),
        ),
    )


def _e(inside: int, pooling: str) -> Branches:
    row, column = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
    return Branches(
        {
            "branch1x1": (inside, 320, 1, 1, 0),
            "branch3x3_1": (inside, 384, 1, 1, 0),
            "branch3x3_2a": (384, 384, *row),
            "branch3x3_2b": (384, 384, *column),
            "branch3x3dbl_1": (inside, 448, 1, 1, 0),
            "branch3x3dbl_2": (448, 384, 3, 1, 1),
            "branch3x3dbl_3a": (384, 384, *row),
            "branch3x3dbl_3b": (384, 384, *column),
            "branch_pool": (inside, 192, 1, 1, 0),
        },
        (
            ("branch1x1",),
            ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
            ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
            (pooling, "branch_pool"),
        ),
    )


class FidInception(nn.Module):
    """Pictures to the 2048 features of the last pooling."""

    def __init__(self) -> None:
        """Build untrained."""
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c = _c(768, 128), _c(768, 160)
        self.Mixed_6d, self.Mixed_6e = _c(768, 160), _c(768, 192)
        self.Mixed_7a = _d(768)
        self.Mixed_7b, self.Mixed_7c = _e(1280, "average"), _e(2048, "maximum")
        self.fc = nn.Linear(WIDTH, CLASSES)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FidInception:
        """Load the weight file.

        Raises:
            WeightsError: It is missing, damaged, or of another network.
        """
        network = cls()
        try:
            network.load_state_dict(read_tensors(path))
        except RuntimeError as error:
            raise WeightsError(
                f"{Path(path)} holds other weights than FID's Inception; "
                "give pt_inception-2015-12-05-6726825d.pth or a copy of it"
            ) from error
        return network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Map pictures [batch, 3, height, width] in 0..1 to features [batch, 2048]."""
        x = functional.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False) * 2 - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, 2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = self.get_submodule(f"Mixed_{name}")(x)
        return x.mean((2, 3))

    @torch.inference_mode()
    def features(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Features of pictures of any sizes, [n, 2048] float32."""
        where = self.fc.weight.device
        rows = [np.zeros((0, WIDTH), np.float32)]
        for start in range(0, len(pictures), BATCH):
            part = [
                functional.interpolate(
                    to_tensor(one)[None], (SIDE, SIDE), mode="bilinear", align_corners=False
                )
                for one in pictures[start : start + BATCH]
            ]
            rows.append(self(torch.cat(part).to(where)).float().cpu().numpy())
        return np.concatenate(rows)

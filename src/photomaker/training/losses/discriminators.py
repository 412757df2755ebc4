"""Discriminators that learn beside a training and pull what it draws towards real pictures.

Source: hinge loss and spectral normalisation, arXiv 1802.05957; R1, arXiv 1801.04406, equation 9.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from photomaker.faces.base import square_around
from photomaker.faces.crops import SIDE, tensor_crops

FACE_CELL = 64
"""Side in pixels of the face crops that the second discriminator sees."""
CRITICS = 0.02
"""Weight of the critics' own loss: Adam does not mind how large a loss is, and clipping by the norm of all gradients
does."""

CHANNELS = (32, 64, 96, 128)
"""Of a discriminator that sees what things are, and not their grain alone."""

Seen: TypeAlias = tuple[Tensor, Tensor]
"""Pictures [batch, 3, h, w] in 0..1, and a face box of each [batch, 4] in pixels; zeros where there is none."""

Window: TypeAlias = tuple[slice, slice]
"""Rows and columns of a picture."""


class Discriminator(nn.Module):
    """Tells drawn pictures from real ones, place by place.

    Args:
        channels: Of its layers, each at half the side of the one before.
        spectral: Whether its weights are normalised by their largest singular value. It then learns slowly what is
            small, which steadies a training; where pictures differ in nothing but fine detail it learns nothing.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS, spectral: bool = True) -> None:
        """Build untrained."""
        super().__init__()
        widths = [3, *channels]
        norm = nn.utils.parametrizations.spectral_norm if spectral else nn.Identity()
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            layers += [norm(nn.Conv2d(inside, outside, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, norm(nn.Conv2d(widths[-1], 1, 1)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map [batch, 3, h, w] in 0..1 to opinions [batch, 1, h', w'], above 0 for real."""
        opinions: Tensor = self.layers(pixels * 2 - 1)
        return opinions


class Critics(nn.Module):
    """Two discriminators: of the whole picture, and of the face; see `Discriminator` for the arguments."""

    def __init__(self, channels: Sequence[int] = CHANNELS, spectral: bool = True) -> None:
        """Build untrained."""
        super().__init__()
        self.whole, self.face = Discriminator(channels, spectral), Discriminator(channels, spectral)

    def views(
        self, pixels: Tensor, boxes: Tensor, window: Window | None = None
    ) -> list[tuple[Discriminator, Tensor]]:
        """What each of them sees; the face's nothing if no face was found."""
        there = [at for at, box in enumerate(boxes.tolist()) if box[2] > box[0] and box[3] > box[1]]
        found: list[tuple[Discriminator, Tensor]] = [
            (self.whole, pixels if window is None else pixels[(..., *window)])
        ]
        if there:
            squares = boxes.new_tensor(
                [square_around(tuple(boxes[at].tolist()), SIDE * 0.85) for at in there]
            )
            found.append((self.face, tensor_crops(pixels[there], squares.to(pixels.device), FACE_CELL)))
        return found

    def fooled(self, pixels: Tensor, boxes: Tensor, window: Window | None = None) -> Tensor:
        """How little the discriminators take drawn pictures for real; their own weights get no gradient."""
        with frozen(self):
            return torch.stack(
                [-critic(seen).float().mean() for critic, seen in self.views(pixels, boxes, window)]
            ).mean()

    def loss(self, drawn: Seen, real: Seen, r1: float, window: Window | None = None) -> tuple[Tensor, float]:
        """The critics' own loss; what drew the pictures gets no gradient.

        Args:
            drawn: What was drawn.
            real: What is real.
            r1: Weight of the penalty on the slope at real pictures; 0 switches it off.
            window: The part of each picture that the first sees; None is all of it.

        Returns:
            The hinge loss with the penalty, and how little the critics are taken in.
        """
        losses, lead = [], []
        pixels, boxes = real
        for critic, seen in self.views(drawn[0].detach(), drawn[1], window):
            losses.append(functional.relu(1 + critic(seen).float()).mean())
            lead.append(-float(losses[-1].detach()))
        for critic, seen in self.views(pixels.detach().requires_grad_(bool(r1)), boxes, window):
            opinion = critic(seen).float()
            losses.append(functional.relu(1 - opinion).mean())
            if r1:
                (slope,) = torch.autograd.grad(opinion.sum(), seen, create_graph=True)
                losses.append(
                    0.5 * r1 * slope.float().square().sum((1, 2, 3)).mean() / opinion[0].numel() ** 2
                )
        return torch.stack(losses).sum() / 2, float(np.mean(lead))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without any for its own weights."""
    before = [one.requires_grad for one in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for one, wanted in zip(module.parameters(), before, strict=True):
            one.requires_grad_(wanted)

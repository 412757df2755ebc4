"""Recipe of the small autoencoder: sharp where people look, and latents that forgive a diffusion model's errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from photomaker.errors import SettingsError
from photomaker.faces.bundled import BundledRecogniser
from photomaker.faces.crops import fine_power
from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.training.data.dataset import Landmarked, People, box_map, feature_map, levels, pictures
from photomaker.training.data.mixture import Laid
from photomaker.training.losses.discriminators import CRITICS, Critics
from photomaker.training.running.recipe import Recipe

SEEN = 64
"""Side in pixels of the window that one of the discriminators sees in a step, to save time; at most a picture's."""

WIDEST = 96
"""Pixels of the shortest side among the formats of the synthetic world."""
CHANCE = 2.0
"""Hinge loss of discriminators that know nothing."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """Weights of the loss.

    Attributes:
        lr: Peak learning rate.
        gradient: Weight of the L1 distance between finite differences of the pictures, against blur.
        face: Weight of pixels in the face box.
        features: Weight of pixels near the eyes and the mouth.
        radius: How near, in pixels.
        noise: Largest standard deviation of the noise on the latents, as a share of each channel's own; each row gets
            its own level below it. What the decoder forgives, the UNet need not get right.
        scale: Weight of the same loss on latents of half the size, which must decode to the picture of half the size
            (scale equivariance, arXiv 2502.09509 and 2502.14831). Without it the latents of neighbouring cells have
            little to do with each other, which makes them slow to learn for a UNet.
        size: Weight of the mean square of the latents, which keeps their scale from drifting.
        perceptual: Pull of what the layers of the bundled recogniser see in the decoded face and in the real one, over
            that of the errors of pixels: what tells people apart counts for more than what the eye would not miss.
        realism: Pull of two discriminators on what is decoded, over the same; at their best, errors of pixels alone
            leave a face with a third of its fine detail. It grows with how sure they are. Both are weighted as in
            VQGAN, arXiv 2012.09841, equation 7, with the gradients taken at the pixels.
        realism_lr: Peak learning rate of the discriminators.
        window: Side in pixels of the square around a face that is trained on, a multiple of 8, to save time; 0 is the
            whole picture.
        decoder_only: Whether the encoder stays as it is, so that the latents of a trained UNet keep their meaning.

    Raises:
        SettingsError: The window is no such square.
    """

    lr: float = 1e-3
    gradient: float = 0.5
    face: float = 3.0
    features: float = 6.0
    radius: float = 9.0
    noise: float = 0.05
    scale: float = 0.0
    size: float = 1e-4
    perceptual: float = 0.0
    realism: float = 0.0
    realism_lr: float = 1e-3
    window: int = 0
    decoder_only: bool = False

    def __post_init__(self) -> None:
        """Check the window."""
        if self.window and (self.window % 8 or not SEEN <= self.window <= WIDEST):
            raise SettingsError(
                f"window is {self.window}; give 0, or a multiple of 8 from {SEEN} to {WIDEST}, the lowest picture"
            )


def differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Finite differences of [batch, channels, h, w] along the height and the width, h and w one smaller."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def reconstruction_loss(decoded: Tensor, target: Tensor, weight: Tensor, gradient: float) -> Tensor:
    """Weighted mean absolute error of pixels and of their finite differences.

    Args:
        decoded: [batch, 3, h, w].
        target: The same shape.
        weight: [batch, 1, h, w], above 0; only ratios count.
        gradient: Weight of the finite differences.

    Returns:
        A scalar.
    """
    error = decoded.float() - target
    weight = weight / weight.mean()
    down, right = differences(error)
    edges = (down.abs() * weight[..., 1:, :]).mean() + (right.abs() * weight[..., :, 1:]).mean()
    return (error.abs() * weight).mean() + gradient * edges


def psnr(decoded: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in -1..1."""
    error = (decoded.float().clamp(-1, 1) - target).square().mean()
    return float(10 * torch.log10(4 / error.clamp(min=1e-12)))


class AutoencoderRecipe(Recipe):
    """Trains a `SmallAutoencoder` on all pictures.

    Args:
        data: Pictures.
        model: The autoencoder; None makes the bundled size.
        settings: Weights of the loss.
        held_out: Rows kept for validation, taken from the end.
        more: Further pictures, of any sizes; a step is of one size.
    """

    name = "autoencoder"

    def __init__(
        self,
        data: People,
        model: SmallAutoencoder | None = None,
        settings: AutoencoderSettings = AutoencoderSettings(),
        held_out: int = 128,
        more: Sequence[Landmarked] = (),
    ) -> None:
        """Store the arguments and split the rows."""
        self.data, self.settings = data, settings
        self.parts: list[Landmarked] = [data, *more]
        self.model = model or SmallAutoencoder()
        self.model.encoder.requires_grad_(not settings.decoder_only)
        # grain and edges are told at a glance: three layers see 22 pixels
        self.critics = Critics((48, 96, 128), spectral=False) if settings.realism else None
        self.laid = Laid([(len(p.images), *p.images.shape[1:3]) for p in self.parts], held_out)

    @cached_property
    def faces(self) -> BundledRecogniser:
        """What tells people apart; never that of the evaluation."""
        return BundledRecogniser.open()

    def modules(self) -> dict[str, nn.Module]:
        """Return the autoencoder, and the discriminators."""
        return {"autoencoder": self.model} | ({} if self.critics is None else {"critics": self.critics})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group without weight decay, and the discriminators' at a rate of their own."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained, "lr": self.settings.lr, "weight_decay": 0.0}]
        if self.critics is not None:
            learnt = {"params": list(self.critics.parameters()), "lr": self.settings.realism_lr}
            groups.append({**learnt, "weight_decay": 0.0, "betas": (0.5, 0.99)})
        return groups

    @property
    def rows(self) -> np.ndarray:
        """All rows but the held-out ones."""
        return self.laid.rows

    @property
    def groups(self) -> np.ndarray:
        """One group a size."""
        return self.laid.groups * (not self.settings.window)

    def shown(self, rows: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Pictures [batch, 3, h, w] in -1..1, face boxes [batch, people, 4], landmarks [batch, people, 5, 2]."""
        local = self.laid.local(rows)
        pixels = torch.cat([pictures(self.parts[part], np.array([row])) for part, row in local])
        most = max(self.parts[part].boxes[row].reshape(-1, 4).shape[0] for part, row in local)
        boxes, landmarks = (
            np.full((len(rows), most, *rest), -1.0, dtype=np.float32) for rest in ((4,), (5, 2))
        )
        for at, (part, row) in enumerate(local):
            found = np.asarray(self.parts[part].boxes[row]).reshape(-1, 4)
            boxes[at, : len(found)] = found
            landmarks[at, : len(found)] = np.asarray(self.parts[part].landmarks[row]).reshape(-1, 5, 2)
        return pixels, boxes, landmarks

    def windows(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Squares of `window` pixels with a face in them, and what `shown` tells of them."""
        side, found = self.settings.window, [self.shown(rows[at : at + 1]) for at in range(len(rows))]
        most = max(boxes.shape[1] for _, boxes, _ in found)
        made, places, points = [], np.full((len(rows), most, 4), -1.0, np.float32), []
        for at, (pixels, boxes, landmarks) in enumerate(found):
            there = np.flatnonzero(boxes[0, :, 2] > boxes[0, :, 0])
            # the first is the one that the discriminators and the recogniser look at
            order = rng.permutation(there)
            box = boxes[0, order[0]]
            corner = [
                int(np.clip(round((low + high - side) / 2 + rng.uniform(-1, 1) * side / 6), 0, whole - side))
                for low, high, whole in (
                    (box[1], box[3], pixels.shape[2]),
                    (box[0], box[2], pixels.shape[3]),
                )
            ]
            top, left = corner
            made.append(pixels[:, :, top : top + side, left : left + side])
            places[at, : len(order)] = boxes[0, order] - np.array([left, top, left, top], np.float32)
            own = np.full((most, 5, 2), -1.0, np.float32)
            own[: len(order)] = landmarks[0, order] - np.array([left, top], np.float32)
            points.append(own)
        return torch.cat(made), places, np.stack(points)

    def weight(self, boxes: np.ndarray, landmarks: np.ndarray, size: Sequence[int]) -> Tensor:
        """Weight of each pixel [batch, 1, h, w]: 1, in a face box `face`, near eyes and mouth `features`."""
        weight = torch.ones(len(boxes), 1, *size)
        for person in range(boxes.shape[1]):
            there = torch.from_numpy(boxes[:, person, 2] > boxes[:, person, 0])[:, None, None, None]
            face = 1 + (self.settings.face - 1) * box_map(boxes[:, person], size, 1)
            near = there * feature_map(landmarks[:, person], size, self.settings.radius)
            weight = torch.maximum(weight, torch.maximum(face, self.settings.features * near))
        return weight

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Reconstruct pictures from latents with a little noise."""
        pixels, boxes, landmarks = self.windows(rows, rng) if self.settings.window else self.shown(rows)
        target = pixels.to(self.device)
        latents = self.model.encoder(target).float()
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        level = torch.rand(len(rows), 1, 1, 1, generator=generator).to(self.device) * self.settings.noise
        spread = latents.detach().std((0, 2, 3), keepdim=True)
        decoded = self.model.decoder(latents + level * spread * noise).float()
        weight = self.weight(boxes, landmarks, target.shape[2:]).to(self.device)
        loss = reconstruction_loss(decoded, target, weight, self.settings.gradient)
        figures = {"psnr": psnr(decoded.detach(), target)}
        first = torch.from_numpy(boxes[:, 0])
        pulls = torch.zeros((), device=self.device)
        if self.settings.perceptual:
            apart = self.faces.apart(decoded / 2 + 0.5, target / 2 + 0.5, first)
            pulls = pulls + self._pull(loss, apart, decoded, self.settings.perceptual)
            figures["faces"] = float(apart.detach())
        if self.critics is not None:
            drawn, real = (decoded / 2 + 0.5, first), (target / 2 + 0.5, first)
            corner = [int(rng.integers(0, side - SEEN + 1)) for side in target.shape[2:]]
            window = slice(corner[0], corner[0] + SEEN), slice(corner[1], corner[1] + SEEN)
            critics, lead = self.critics.loss(drawn, real, 0.0, window)
            fooled = self.critics.fooled(*drawn, window)
            # discriminators that cannot tell the two apart know no direction to pull in
            sure = max(0.0, 1 - float(critics.detach()) / CHANCE)
            pulls = (
                pulls + self._pull(loss, fooled, decoded, self.settings.realism * sure) + CRITICS * critics
            )
            figures |= {"critics": float(critics.detach()), "lead": lead}
        if self.settings.scale:
            half, wanted, counts = (functional.avg_pool2d(one, 2) for one in (latents, target, weight))
            smaller = self.model.decoder(half)
            loss = loss + self.settings.scale * reconstruction_loss(
                smaller, wanted, counts, self.settings.gradient
            )
        loss = loss + pulls
        return loss + self.settings.size * latents.square().mean(), figures

    @staticmethod
    def _pull(loss: Tensor, other: Tensor, decoded: Tensor, share: float) -> Tensor:
        """The gradient of another loss at the pixels, scaled to `share` times that of the errors of pixels."""
        (wanted,) = torch.autograd.grad(other, decoded)
        (ordinary,) = torch.autograd.grad(loss, decoded, retain_graph=True)
        scale = share * ordinary.norm() / wanted.norm().clamp(min=1e-12)
        return ((decoded - decoded.detach()) * (scale * wanted)).sum()

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Measure the signal-to-noise ratio of held-out pictures and of their faces, and how sharp faces stay."""
        rows = self.laid.held_out
        target = pictures(self.data, rows)
        decoded = torch.cat(
            [self.model(part.to(self.device)).sample.float().cpu() for part in target.split(32)]
        )
        boxes = self.data.boxes[rows]
        inside = box_map(boxes, target.shape[2:], 1) > 0.5  # noqa: PLR2004 - half of a pixel
        inside = inside.expand_as(target)
        fine = [
            float(np.mean([fine_power(one, box) for one, box in zip(levels(pixels), boxes, strict=True)]))
            for pixels in (decoded, target)
        ]
        return {
            "psnr": psnr(decoded, target),
            "face_psnr": psnr(decoded[inside], target[inside]),
            "sharpness": fine[0] / max(fine[1], 1e-9),
        }

    def export(self, folder: Path) -> None:
        """Save the autoencoder in half precision, its latents normalised to mean 0 and deviation 1 unless they stay."""
        model = SmallAutoencoder.from_config(self.model.config)
        model.load_state_dict(self.model.state_dict())
        own = self.rows[self.rows < len(self.data.images)]
        rows = own[np.linspace(0, len(own) - 1, min(1024, len(own))).astype(int)]
        with torch.no_grad():
            parts = np.array_split(rows, len(rows) // 32 + 1)
            latents = torch.cat([model.encoder(pictures(self.data, part)) for part in parts])
        if not self.settings.decoder_only:
            model.rescale_latents(latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
        model.half().save_pretrained(folder)

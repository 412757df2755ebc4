"""Recipe of the small autoencoder: sharp where people look, and latents that forgive a diffusion model's errors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from photomaker.faces.bundled import BundledRecogniser
from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.training.data import People, box_map, feature_map, pictures
from photomaker.training.loop import Recipe


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
        perceptual: Weight of 1 - cosine between what the bundled recogniser sees in the decoded face and in the real
            one: what tells people apart counts for more than what the eye would not miss.
        decoder_only: Whether the encoder stays as it is, so that the latents of a trained UNet keep their meaning.
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
    decoder_only: bool = False


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
    """

    name = "autoencoder"

    def __init__(
        self,
        data: People,
        model: SmallAutoencoder | None = None,
        settings: AutoencoderSettings = AutoencoderSettings(),
        held_out: int = 128,
    ) -> None:
        """Keep what is given and split the rows."""
        self.data, self.settings = data, settings
        self.model = model or SmallAutoencoder()
        self.model.encoder.requires_grad_(not settings.decoder_only)
        count = len(data.images)
        held_out = min(held_out, count // 4)
        self._rows, self._held_out = np.arange(count - held_out), np.arange(count - held_out, count)

    @cached_property
    def faces(self) -> BundledRecogniser:
        """What tells people apart; never that of the evaluation."""
        return BundledRecogniser.open()

    def modules(self) -> dict[str, nn.Module]:
        """Return the autoencoder."""
        return {"autoencoder": self.model}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group without weight decay."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return [{"params": trained, "lr": self.settings.lr, "weight_decay": 0.0}]

    @property
    def rows(self) -> np.ndarray:
        """All rows but the held-out ones."""
        return self._rows

    def weight(self, rows: np.ndarray) -> Tensor:
        """Weight of each pixel [batch, 1, 128, 128]: 1, in the face box `face`, near eyes and mouth `features`."""
        face = 1 + (self.settings.face - 1) * box_map(self.data.boxes[rows], (128, 128), 1)
        near = feature_map(self.data.landmarks[rows], 128, self.settings.radius)
        return torch.maximum(face, self.settings.features * near)

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Reconstruct pictures from latents with a little noise."""
        target = pictures(self.data, rows).to(self.device)
        latents = self.model.encoder(target).float()
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        level = torch.rand(len(rows), 1, 1, 1, generator=generator).to(self.device) * self.settings.noise
        spread = latents.detach().std((0, 2, 3), keepdim=True)
        decoded = self.model.decoder(latents + level * spread * noise)
        weight = self.weight(rows).to(self.device)
        loss = reconstruction_loss(decoded, target, weight, self.settings.gradient)
        if self.settings.scale:
            half, wanted, counts = (functional.avg_pool2d(one, 2) for one in (latents, target, weight))
            smaller = self.model.decoder(half)
            loss = loss + self.settings.scale * reconstruction_loss(
                smaller, wanted, counts, self.settings.gradient
            )
        if self.settings.perceptual:
            boxes = torch.from_numpy(self.data.boxes[rows])
            seen, wanted = (
                self.faces.embed_tensors(one.float() / 2 + 0.5, boxes) for one in (decoded, target)
            )
            loss = loss + self.settings.perceptual * (1 - (seen * wanted).sum(-1)).mean()
        return loss + self.settings.size * latents.square().mean(), {"psnr": psnr(decoded.detach(), target)}

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Measure the signal-to-noise ratio of held-out pictures and of their faces."""
        target = pictures(self.data, self._held_out)
        decoded = torch.cat(
            [self.model(part.to(self.device)).sample.float().cpu() for part in target.split(32)]
        )
        inside = box_map(self.data.boxes[self._held_out], (128, 128), 1) > 0.5  # noqa: PLR2004 - half of a pixel
        inside = inside.expand_as(target)
        return {"psnr": psnr(decoded, target), "face_psnr": psnr(decoded[inside], target[inside])}

    def export(self, folder: Path) -> None:
        """Save the autoencoder in half precision, its latents normalised to mean 0 and deviation 1 unless they stay."""
        model = SmallAutoencoder.from_config(self.model.config)
        model.load_state_dict(self.model.state_dict())
        rows = self._rows[np.linspace(0, len(self._rows) - 1, min(1024, len(self._rows))).astype(int)]
        with torch.no_grad():
            parts = np.array_split(rows, len(rows) // 32 + 1)
            latents = torch.cat([model.encoder(pictures(self.data, part)) for part in parts])
        if not self.settings.decoder_only:
            model.rescale_latents(latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
        model.half().save_pretrained(folder)

"""What happens to pictures on their way into a small network: light, noise, blur and moved boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw numbers between `low` and `high`."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def relit(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and warmth of every picture a little.

    Args:
        images: [batch, 3, height, width] in 0..1.
        strength: Largest change, about 0..0.4.
        generator: Source of randomness.

    Returns:
        Pictures in 0..1.
    """
    batch = len(images)
    gain = 1 + uniform((batch, 1, 1, 1), -strength, strength, generator)
    colour = 1 + uniform((batch, 3, 1, 1), -strength / 4, strength / 4, generator)
    shift = uniform((batch, 1, 1, 1), -strength / 3, strength / 3, generator)
    return ((images - 0.5) * gain * colour + 0.5 + shift).clamp(0, 1)


def noised(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise, for every picture of another standard deviation in 0..`most`."""
    deviation = uniform((len(images), 1, 1, 1), 0, most, generator)
    return (images + deviation * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def blurred(images: Tensor, share: float, least: float, generator: torch.Generator) -> Tensor:
    """Soften a share of the pictures, as generated ones are: shrink to `least` up to 0.9 of the size and enlarge."""
    chosen = torch.rand(len(images), generator=generator) < share
    if not bool(chosen.any()):
        return images
    factor = float(uniform((1,), least, 0.9, generator))
    size = images.shape[-2:]
    small = functional.interpolate(
        images[chosen],
        scale_factor=factor,
        mode="bilinear",
        align_corners=False,
        antialias=True,
        recompute_scale_factor=True,
    )
    soft = functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
    result = images.clone()
    result[chosen] = soft
    return result


def moved_squares(
    boxes: Tensor, side: float, shift: float, zoom: float, generator: torch.Generator
) -> Tensor:
    """Squares around face boxes, moved and scaled a little, as a detector's boxes are.

    Args:
        boxes: [batch, 4] x0, y0, x1, y1 in pixels.
        side: Side of the squares over the longer side of the box.
        shift: Standard deviation of the shift, in longer sides of the box.
        zoom: Standard deviation of the logarithm of the scale.
        generator: Source of randomness.

    Returns:
        [batch, 4] squares in pixels.
    """
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True)
    middle = (boxes[:, 2:] + boxes[:, :2]) / 2
    middle = middle + shift * longer * torch.randn(middle.shape, generator=generator)
    half = side / 2 * longer * torch.exp(zoom * torch.randn(longer.shape, generator=generator))
    return torch.cat([middle - half, middle + half], dim=1)

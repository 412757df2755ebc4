"""Latents of pictures, cached on disk or computed each time: the autoencoder is frozen in training.

Both ways take the middle of the autoencoder's distribution, rounded to half precision, so that keeping them changes
speed and memory and no loss. (The spread around it is small beside that of the latents themselves.)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from photomaker import bfloat16
from photomaker.pipelines.autoencoder import FACTOR, SmallAutoencoder
from photomaker.training.data.dataset import SIZE, Album, Pictured, pictures
from photomaker.training.data.frames import Frames
from photomaker.training.data.array_cache import ALONE, Share, computed

Autoencoder: TypeAlias = SmallAutoencoder | AutoencoderKL
PIXELS = 32 * SIZE**2
"""Pixels that are encoded at once."""


class Latents(Protocol):
    """Latents of a dataset: rows [batch] of one size to float16 [batch, channels, h, w]."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Latents of some rows."""


def fingerprint(module: nn.Module, without: tuple[str, ...] = ()) -> str:
    """First 16 hexadecimal digits of a hash over all weights but those whose names begin with one of `without`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name.startswith(without):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def encoder_fingerprint(autoencoder: Autoencoder) -> str:
    """The same of what makes latents: a decoder that learns alone leaves them good."""
    return fingerprint(autoencoder, without=("decoder.", "post_quant_conv."))


@torch.no_grad()
def encoded(autoencoder: Autoencoder, pixels: Tensor) -> np.ndarray:
    """Latents of pictures.

    Args:
        autoencoder: In float32; one that does not overflow in half precision runs in bfloat16 where that is quicker.
        pixels: [batch, 3, 8h, 8w] in -1..1.

    Returns:
        float16 [batch, channels, h, w], at the scale that the UNet sees.
    """
    parts = []
    for part in pixels.split(max(1, PIXELS // pixels[0, 0].numel())):
        half = not autoencoder.config.force_upcast and bfloat16.quick(autoencoder.device)
        with torch.autocast(autoencoder.device.type, torch.bfloat16, enabled=half):
            posterior = autoencoder.encode(part.to(autoencoder.device), return_dict=False)[0]
        parts.append(posterior.mode().float().cpu() * autoencoder.config.scaling_factor)
    return torch.cat(parts).numpy().astype(np.float16)


def cached_latents(
    autoencoder: SmallAutoencoder, data: Pictured, folder: Path, process: int = 0, processes: int = 1
) -> np.ndarray:
    """Latents of every row of synthetic pictures of one size, from disk where an earlier call wrote them.

    Args:
        autoencoder: In float32; the cache is bound to its encoder's weights.
        data: The pictures; another dataset of as many and as large pictures needs a folder of its own.
        folder: Where the caches are kept.
        process: Number of this process.
        processes: Number of processes that share the work.

    Returns:
        Read-only float16 memory map [rows, channels, h, w].

    Raises:
        OutputError: The folder cannot be written.
    """
    count = len(data.images)
    height, width = (int(side) // FACTOR for side in data.images.shape[1:3])
    shape = (count, autoencoder.config.latent_channels, height, width)
    size = "" if height == width == SIZE // FACTOR else f"_{height}x{width}"
    name = f"latents_{encoder_fingerprint(autoencoder)}_{count}{size}"
    with _on_a_gpu(autoencoder):
        found = computed(
            folder / name,
            {"latents": shape},
            lambda rows: {"latents": encoded(autoencoder, pictures(data, rows))},
            Share(process, processes),
        )
    return found["latents"]


@contextmanager
def _on_a_gpu(autoencoder: Autoencoder) -> Iterator[None]:
    """The autoencoder on this process's GPU where there is one, and back again."""
    before = autoencoder.device
    if before.type == "cpu" and torch.cuda.is_available():
        autoencoder.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    try:
        yield
    finally:
        autoencoder.to(before)


class FramedLatents:
    """Latents of framed pictures, encoded each time they are asked for.

    Args:
        autoencoder: In float32.
        data: The pictures.
        frames: Their sizes.
    """

    def __init__(self, autoencoder: Autoencoder, data: Album, frames: Frames) -> None:
        """Store the arguments."""
        self.autoencoder, self.data, self.frames = autoencoder, data, frames

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Read, frame and encode."""
        framed = np.stack(
            [self.frames.picture(int(row), np.asarray(self.data.images[int(row)])) for row in rows]
        )
        pixels = torch.from_numpy(framed.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1
        return encoded(self.autoencoder, pixels)


class KeptLatents:
    """The same from disk, one array a size; what is missing is computed at the start.

    Args:
        source: What encodes.
        folder: Where the caches are kept.
        name: Of the dataset, so that latents of another are never taken for its own.
        share: Which part of the work is this process's.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, source: FramedLatents, folder: Path, name: str, share: Share = ALONE) -> None:
        """Compute what is missing."""
        frames, autoencoder = source.frames, source.autoencoder
        self.buckets, self.places = frames.buckets, np.zeros(len(frames.buckets), dtype=np.int64)
        self.arrays: dict[int, np.ndarray] = {}
        print_ = encoder_fingerprint(autoencoder)
        for bucket in np.unique(frames.buckets):
            members = np.flatnonzero(frames.buckets == bucket)
            height, width = (int(side) // FACTOR for side in frames.targets[members[0]])
            self.places[members] = np.arange(len(members))
            shape = (len(members), autoencoder.config.latent_channels, height, width)
            with _on_a_gpu(autoencoder):
                found = computed(
                    folder / f"latents_{print_}_{name}_{height * FACTOR}x{width * FACTOR}",
                    {"latents": shape},
                    lambda rows, members=members: {"latents": source[members[rows]]},  # type: ignore[misc]
                    share,
                )
            self.arrays[int(bucket)] = found["latents"]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Look up."""
        return self.arrays[int(self.buckets[rows[0]])][self.places[rows]]

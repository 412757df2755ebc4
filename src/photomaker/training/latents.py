"""Latents of all pictures, computed once and kept on disk: the autoencoder is frozen while a UNet learns."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from photomaker.errors import OutputError
from photomaker.pipelines.autoencoder import FACTOR, SmallAutoencoder
from photomaker.training.data import SIZE, People, pictures

CHUNK = 1024
DONE = "done"


def fingerprint(module: nn.Module) -> str:
    """First 16 hexadecimal digits of a hash over all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _create(path: Path, shape: tuple[int, ...]) -> None:
    """Make the file at its full length, once, whichever process comes first."""
    if path.exists():
        return
    part = path.with_suffix(f".{os.getpid()}.part")
    np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape).flush()
    part.replace(path)


def _encode(autoencoder: SmallAutoencoder, data: People, rows: np.ndarray) -> np.ndarray:
    parts = []
    for part in np.array_split(rows, max(1, len(rows) // 32)):
        pixels = pictures(data, part).to(autoencoder.device)
        with torch.no_grad(), torch.autocast(pixels.device.type, torch.bfloat16):
            parts.append(autoencoder.encode(pixels, return_dict=False)[0].mode().float().cpu())
    return torch.cat(parts).numpy().astype(np.float16)


def cached_latents(
    autoencoder: SmallAutoencoder, data: People, folder: Path, process: int = 0, processes: int = 1
) -> np.ndarray:
    """Latents of every row, from disk where an earlier call wrote them.

    Work is cut into chunks with one marker file each, so that a killed call continues, and so that several processes
    can share it; every process returns once all chunks of its own share are there.

    Args:
        autoencoder: In float32; the cache is bound to its weights.
        data: The pictures.
        folder: Where the caches are kept.
        process: Number of this process.
        processes: Number of processes that share the work.

    Returns:
        Read-only float16 memory map [rows, channels, 16, 16].

    Raises:
        OutputError: The folder cannot be written.
    """
    count, side = len(data.images), SIZE // FACTOR
    folder = folder / f"latents_{fingerprint(autoencoder)}_{count}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "latents.npy"
        _create(path, (count, autoencoder.config.latent_channels, side, side))
    except OSError as error:
        raise OutputError(
            f"cannot write latents to {folder}: {error.strerror}; choose another folder"
        ) from error
    starts = [s for i, s in enumerate(range(0, count, CHUNK)) if i % processes == process]
    open_starts = [s for s in starts if not (folder / f"{s}.{DONE}").exists()]
    if open_starts:
        target = np.load(path, mmap_mode="r+")
        for start in tqdm(open_starts, desc="latents", disable=process != 0):
            rows = np.arange(start, min(start + CHUNK, count))
            target[rows[0] : rows[-1] + 1] = _encode(autoencoder, data, rows)
            target.flush()
            (folder / f"{start}.{DONE}").touch()
    return np.load(path, mmap_mode="r")

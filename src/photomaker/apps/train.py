"""`photomaker train`: trains adapters."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from photomaker import config as settings_file
from photomaker.apps import terminal

if TYPE_CHECKING:
    from PIL import Image

    from photomaker.training.plan import TrainConfig
    from photomaker.training.recipes.photoverse import FaceEmbedding
    from photomaker.training.running.previews import Score


def run(path: Path, changes: Sequence[str], fresh: bool, export_only: bool) -> None:
    """Read the settings, train or export, and print where the result is.

    Args:
        path: YAML file of a `TrainConfig`.
        changes: "a.b=value" each, which override the file's.
        fresh: Start again instead of continuing.
        export_only: Export from a checkpoint without training.

    Raises:
        PhotoMakerError: The settings, the data or a model cannot be used, or the disk is full.
    """
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils.logging import disable_progress_bar as disable_bar_of_weights

    from photomaker.training import plan

    disable_progress_bar()
    disable_bar_of_weights()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = settings_file.read(path, plan.TrainConfig, changes)
    main = os.environ.get("RANK", "0") == "0"
    if export_only:
        folder = plan.export(config)
        if main:
            terminal.say(f"exported to {folder}")
        return
    score = _score(config.preview.likeness) if config.loop.preview_every else None
    face = _face_embedding() if _sees_faces(config) else None
    figures = plan.run(config, score, fresh, face)
    if not main:
        return
    shown = [(name, f"{value:.6g}") for name, value in sorted(figures.items()) if name != "finished"]
    terminal.table(str(config.out), ("figure", "value"), shown, ("value",))
    if figures["finished"]:
        terminal.say(f"the adapter is {config.out / 'export'}")
    else:
        terminal.note("stopped before the end; the same command continues from here")


def _sees_faces(config: TrainConfig) -> bool:
    """Whether the method is trained with the bundled recogniser, which knows only synthetic people."""
    if config.method in ("instantid", "pulid"):
        return config.data.kind == "world"
    return config.method == "photoverse" and bool(config.photoverse.face)


def _face_embedding() -> FaceEmbedding:
    """The bundled recogniser on pictures as tensors, with gradients."""
    from photomaker.faces import BundledRecogniser

    return BundledRecogniser.open().embed_tensors


def _score(likeness: str) -> Score | None:
    """The recogniser for the previews."""
    if likeness == "none":
        return None
    if likeness == "bundled":
        from photomaker.faces import BundledFaces, BundledRecogniser

        detector, recogniser = BundledFaces.open(), BundledRecogniser.open()

        def embedded(images: Sequence[Image.Image]) -> np.ndarray:
            found = [(image, faces[0]) for image in images if (faces := detector.detect(image))]
            return (
                recogniser.embed_batch([image for image, _ in found], [face for _, face in found])
                if found
                else np.empty((0, 1))
            )

    else:
        from photomaker import registry

        embedder = registry.find("face embedder", "insightface").open("buffalo_l")

        def embedded(images: Sequence[Image.Image]) -> np.ndarray:
            rows = [row / np.linalg.norm(row) for row in embedder.embed(images) if row is not None]
            return np.stack(rows) if rows else np.empty((0, 1))

    def score(drawn: Sequence[Image.Image], photos: Sequence[Image.Image]) -> float:
        """Mean cosine between generated faces and faces in the photos."""
        both = embedded(drawn), embedded(photos)
        return float((both[0] @ both[1].T).mean()) if all(map(len, both)) else float("nan")

    return score

"""The nouns that flow through the rooms, as frozen dataclasses."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomaker.errors import IdentityError, SettingsError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

FORMAT = "photomaker-identity-1"
MEMORY_PLANS = ("auto", "max-speed", "balanced", "lowest")
"""What may be asked for where memory is short; see `photomaker.pipelines.memory`."""


@dataclass(frozen=True)
class Face:
    """A face found in a photo.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the photo, origin top left.
        score: Detector confidence in 0..1.
        landmarks: [5, 2] pixels: left eye, right eye, nose tip, left and right mouth corner, as seen in the picture.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])


@dataclass(frozen=True)
class Reference:
    """One reference photo of a person.

    Attributes:
        image: Upright RGB picture.
        name: What to call it in messages.
        sha256: Hash of the file it came from.
        face: The face chosen in it.
        mask: uint8 [height, width], 255 on the person, for methods that set the background aside.
    """

    image: Image
    name: str = ""
    sha256: str = ""
    face: Face | None = None
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Sampling:
    """How a picture is drawn.

    Attributes:
        steps: Denoising steps, 1..1000.
        guidance: Classifier-free guidance scale; 1 switches guidance off.
        merge: Delayed merging: the share of the steps, 0..1, that use the text-only prompt (paper section 3.2; `style
            strength` of the official demo is 100 times this). None takes the model's own default.
        seed: Seed of the initial noise, 0 or more.
        width: Width in pixels, a multiple of 8; None takes the model's own size.
        height: Height in pixels, a multiple of 8; None takes the model's own size.

    Raises:
        SettingsError: A value lies outside its range.
    """

    steps: int = 20
    guidance: float | None = None
    merge: float | None = None
    seed: int = 0
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.steps <= 1000:  # noqa: PLR2004
            raise SettingsError(f"steps is {self.steps}; give a number from 1 to 1000")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise SettingsError(
                f"guidance is {self.guidance}; give a number from 0 up, 1 switches guidance off"
            )
        if self.merge is not None and not 0 <= self.merge <= 1:
            raise SettingsError(f"merge is {self.merge}; give a share of the steps from 0 to 1")
        if not 0 <= self.seed < 2**63:
            raise SettingsError(f"seed is {self.seed}; give a whole number from 0 to 2**63 - 1")
        for name, value in (("width", self.width), ("height", self.height)):
            if value is not None and (value < 8 or value % 8):  # noqa: PLR2004
                raise SettingsError(f"{name} is {value}; give a multiple of 8")


@dataclass(frozen=True)
class Request:
    """One picture asked for: a prompt and how to draw it."""

    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    negative_prompt: str | None = None


@dataclass(frozen=True)
class Identity:
    """A person as a value: what a method keeps of the reference photos.

    Attributes:
        method: Name of the method that made it, for example `photomaker-v1`.
        tensors: Named tensors; for PhotoMaker `id_features` [photos, width] (before fusion) and `weights` [photos].
        notes: Plain JSON data: encoder name and hash, photo hashes, licence, class word, and whatever the user adds.
    """

    method: str
    tensors: Mapping[str, torch.Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, atomically.

        Raises:
            IdentityError: The file cannot be written there.
        """
        from safetensors.torch import save

        path = Path(path)
        data = save(
            {name: tensor.contiguous() for name, tensor in self.tensors.items()},
            metadata={
                "format": FORMAT,
                "method": self.method,
                "notes": json.dumps(dict(self.notes), sort_keys=True),
            },
        )
        try:
            with tempfile.NamedTemporaryFile(
                dir=path.parent, prefix=path.name, suffix=".part", delete=False
            ) as part:
                part.write(data)
            Path(part.name).replace(path)
        except OSError as error:
            raise IdentityError(
                f"cannot write the identity to {path}: {error.strerror}; choose another place"
            ) from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Read a file that `save` wrote.

        Raises:
            IdentityError: The file is missing or is no identity file.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise IdentityError(f"there is no identity file {path}; make one with `photomaker identity make`")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError, ValueError) as error:
            raise IdentityError(
                f"{path} is no identity file or is damaged; make it again from the photos"
            ) from error
        if metadata.get("format") != FORMAT:
            raise IdentityError(
                f"{path} is a safetensors file but no identity; make one with `photomaker identity make`"
            )
        return cls(metadata["method"], tensors, json.loads(metadata["notes"]))


@dataclass(frozen=True)
class Sample:
    """One generated picture with what is known about it.

    Attributes:
        image: The picture.
        request: What was asked for.
        likeness: Mean cosine between its face and the references' faces in -1..1; None where no face was found or no
            recogniser was used.
    """

    image: Image
    request: Request
    likeness: float | None = None

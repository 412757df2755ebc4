"""Fingerprints of a picture's pixels, which show how a later copy was changed."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

FIELDS = 8
"""Fields across and down; each has a hash."""
LOOK = 16
"""Side of the small grey copy."""
_HASH = 4
_ALIKE = 6.0
"""Mean difference of the grey copies in 0..255 below which two pictures look the same; re-encoding stays below 2."""
_MANY = FIELDS * FIELDS // 2
"""Number of changed fields from which the whole picture counts as changed."""


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a picture's pixels.

    Attributes:
        size: Width and height.
        sha256: Hash of its RGB pixels.
        fields: `FIELDS` x `FIELDS` hashes of 4 bytes, row by row.
        look: `LOOK` x `LOOK` grey values, row by row.
    """

    size: tuple[int, int]
    sha256: str
    fields: bytes
    look: bytes

    @classmethod
    def of(cls, picture: Image.Image) -> Fingerprint:
        """The fingerprint of a picture."""
        rgb = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
        rows, columns = (np.linspace(0, side, FIELDS + 1).astype(int) for side in rgb.shape[:2])
        fields = [
            hashlib.sha256(rgb[top:bottom, left:right].tobytes()).digest()[:_HASH]
            for top, bottom in pairwise(rows)
            for left, right in pairwise(columns)
        ]
        grey = picture.convert("L").resize((LOOK, LOOK), Image.Resampling.BOX)
        return cls(picture.size, hashlib.sha256(rgb.tobytes()).hexdigest(), b"".join(fields), grey.tobytes())

    def as_json(self) -> dict[str, Any]:
        """Plain data, for a manifest."""
        return {
            "width": self.size[0],
            "height": self.size[1],
            "sha256": self.sha256,
            "fields": base64.b64encode(self.fields).decode(),
            "look": base64.b64encode(self.look).decode(),
        }

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Fingerprint | None:
        """Read the data of `as_json`; None if it is something else."""
        try:
            fields, look = (base64.b64decode(told[name], validate=True) for name in ("fields", "look"))
            found = cls((int(told["width"]), int(told["height"])), str(told["sha256"]), fields, look)
        except (KeyError, TypeError, ValueError, binascii.Error):
            return None
        good = len(fields) == FIELDS * FIELDS * _HASH and len(look) == LOOK * LOOK
        return found if good else None

    def change(self, now: Fingerprint) -> str | None:
        """How the picture was changed, as the end of a sentence; None if its pixels are the same."""
        if now.sha256 == self.sha256 and now.size == self.size:
            return None
        difference = float(np.abs(_grey(self.look) - _grey(now.look)).mean())
        if now.size != self.size:
            how = "resized" if difference < _ALIKE else "cropped, or another picture put in its place"
            was, is_ = (" x ".join(map(str, size)) for size in (self.size, now.size))
            return f"it was {how}: from {was} to {is_} pixels"
        changed = [place for place in range(FIELDS * FIELDS) if self._field(place) != now._field(place)]
        if len(changed) <= _MANY:
            return f"pixels were changed, in {len(changed)} of {FIELDS * FIELDS} fields of it ({_where(changed)})"
        if difference < _ALIKE:
            return "it was re-encoded with loss, or changed slightly all over: it looks the same, its pixels differ"
        return "another picture is in its place, or most of it was changed"

    def _field(self, place: int) -> bytes:
        return self.fields[place * _HASH : (place + 1) * _HASH]


def _grey(look: bytes) -> np.ndarray:
    return np.frombuffer(look, np.uint8).astype(float)


def _where(changed: list[int]) -> str:
    """The part of the picture with the centre of the changed fields."""
    rows, columns = np.divmod(np.array(changed), FIELDS)
    names = []
    for middle, (first, second) in ((rows.mean(), ("top", "bottom")), (columns.mean(), ("left", "right"))):
        third = (middle + 0.5) * 3 / FIELDS
        names.append(first if third < 1 else second if third > 2 else "")  # noqa: PLR2004 - thirds
    return " ".join(name for name in names if name) or "the middle"

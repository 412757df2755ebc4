"""Whether a drawn face is turned far away, or has something before it: a hand, a cup, a phone.

The bundled detector was trained on faces that are turned by less than 30 degrees and gives the points of such a face
whatever it sees, so points alone do not tell. Each margin is linear in a few cues, with weights from a logistic
regression on drawn people from 3000500 and 3010000 on. Photographs are another world: for them none of this holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from photomaker.types import Face

CELLS = 24
"""Places across each patch of a face."""
WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "hand": {
        "score": -19.94,
        "least": -1.888,
        "balance": -6.445,
        "off": -1.661,
        "lit": 2.048,
        "whites": -2.643,
        "sides": -7.793,
        "smooth": -0.409,
        "mirror": -1.96,
        "lips": -2.055,
        "turn": -10.33,
        "cheeks": -21.5,
        "dark": 5.638,
        "rough": -26.64,
        "red": -13.16,
        "redder": 1.566,
        "one": 14.19,
    },
    "phone": {
        "score": -17.69,
        "least": 0.4781,
        "balance": -0.5028,
        "off": 0.1942,
        "lit": -1.269,
        "whites": -0.08258,
        "sides": -1.458,
        "smooth": -1.564,
        "mirror": -5.375,
        "lips": -3.757,
        "turn": -11.86,
        "cheeks": 20.38,
        "dark": 3.659,
        "rough": -9.593,
        "red": -8.373,
        "redder": -1.075,
        "one": 6.714,
    },
    "mouth": {
        "score": -11.03,
        "least": 0.5416,
        "balance": 2.798,
        "off": -0.3305,
        "lit": -2.662,
        "whites": 0.6548,
        "sides": 1.1,
        "smooth": -1.376,
        "mirror": 0.6258,
        "lips": -2.778,
        "turn": -14.26,
        "cheeks": 7.818,
        "dark": 8.452,
        "rough": -32.66,
        "red": -30.46,
        "redder": -3.156,
        "one": -0.8196,
    },
    "turned": {
        "score": -26.42,
        "least": -0.1509,
        "balance": -3.188,
        "off": -3.032,
        "lit": 3.106,
        "whites": -0.9826,
        "sides": -0.4002,
        "smooth": -0.5492,
        "mirror": -1.118,
        "lips": -7.945,
        "turn": 14.22,
        "cheeks": 19.09,
        "dark": 4.389,
        "rough": -29.01,
        "red": -17.63,
        "redder": -0.7101,
        "one": 14.56,
    },
}


def margins(image: Image.Image, face: Face) -> dict[str, float]:
    """How clearly a drawn face is `turned`, has a `hand` or a `phone` before an eye, or something before its `mouth`.

    Args:
        image: The picture.
        face: As the bundled detector gives it.

    Returns:
        A margin for each; above 0 it is so.
    """
    seen = {**cues(image, face), "one": 1.0}
    return {what: sum(weight * seen[cue] for cue, weight in own.items()) for what, own in WEIGHTS.items()}


def cues(image: Image.Image, face: Face) -> dict[str, float]:
    """What the margins are made of.

    Lengths are in distances between the eyes, brightness over that of the skin of cheeks and brow.

    Args:
        image: The picture.
        face: A face with five landmarks.

    Returns:
        score: The detector's.
        least: Logarithm of how much the flatter eye's brightness varies; balance: the same over the other eye's.
        off: How far the flatter eye's colour is from the skin's; lit: logarithm of its brightness; smooth: that of the
            differences of its rows; whites: that of how much the less contrasted eye's brightness spans.
        sides: How far the colour at the face's sides is from the skin's.
        mirror: Correlation of the face with its mirror image; lips: that of the mouth's redness.
        turn: Distance of the nose from the middle between the eyes, across the face.
        cheeks: How far a cheek's colour is from the skin's.
        dark: Brightness of the darkest of the mouth; rough: second differences of its rows.
        red: Redness of the middle of the mouth over that of its edges; redder: logarithm of its reddest over its usual.
    """
    patch = _Patches(image, face)
    skin = [patch.at(eye, 0.15, 0.1, 0.55) for eye in (patch.left, patch.right)]
    skin.append(patch.at(patch.eyes, 0.12, 0.12, -0.28))
    usual = [np.median(one.reshape(-1, 3), 0) for one in skin]
    level = float(np.median([np.median(_bright(one)) for one in skin])) + 8
    colour = _shares(np.median(usual, 0))
    eyes = [patch.at(eye, 0.34, 0.26) for eye in (patch.left, patch.right)]
    spreads = [float(_bright(eye).std()) / level for eye in eyes]
    flatter = eyes[int(np.argmin(spreads))]
    whites = [
        float(np.quantile(_bright(eye), 0.95) - np.quantile(_bright(eye), 0.05)) / level for eye in eyes
    ]
    band = patch.at(patch.middle, 1.0, 0.45)
    sides = [np.median(one.reshape(-1, 3), 0) for one in (band[:, :4], band[:, -4:])]
    mouth, whole = (
        patch.at(patch.mouth, 0.5, 0.35),
        _bright(patch.at(patch.middle, 1.0, 1.1, cells=2 * CELLS)),
    )
    redness = _redness(mouth)
    rows = _bright(mouth).mean(1) / level
    edges = np.concatenate([redness[:3], redness[-3:]])
    middle = redness[CELLS // 3 : 2 * CELLS // 3, CELLS // 4 : 3 * CELLS // 4]
    return {
        "score": float(face.score),
        "least": float(np.log(min(spreads) + 0.02)),
        "balance": float(np.log(min(spreads) + 0.02) - np.log(max(spreads) + 0.02)),
        "off": float(np.abs(_shares(np.median(flatter.reshape(-1, 3), 0)) - colour).sum()),
        "lit": float(np.log(np.median(_bright(flatter)) / level + 0.05)),
        "whites": float(np.log(min(whites) + 0.05)),
        "sides": float(max(np.abs(_shares(one) - colour).sum() for one in sides)),
        "smooth": float(np.log(np.abs(np.diff(_bright(flatter), axis=0)).mean() / level + 0.01)),
        "mirror": _correlation(whole, whole[:, ::-1]),
        "lips": _correlation(redness, redness[:, ::-1]),
        "turn": patch.turn,
        "cheeks": float(max(np.abs(_shares(one) - colour).sum() for one in usual[:2])),
        "dark": float(np.quantile(_bright(mouth), 0.03)) / level,
        "rough": float(np.abs(np.diff(rows, 2)).mean()),
        "red": float(middle.mean() - edges.mean()),
        "redder": float(np.log(np.quantile(redness, 0.95) - np.median(redness) + 0.01)),
    }


class _Patches:
    """Pixels of a face in its own frame: across from eye to eye, down from eyes to mouth."""

    def __init__(self, image: Image.Image, face: Face) -> None:
        self.pixels = np.asarray(image.convert("RGB")).astype(float)
        self.left, self.right, nose, *corners = (np.asarray(point, float) for point in face.landmarks)
        self.eyes, self.mouth = (self.left + self.right) / 2, (corners[0] + corners[1]) / 2
        self.middle = (self.eyes + self.mouth) / 2
        self.size = max(float(np.linalg.norm(self.right - self.left)), 1e-6)
        self.across = (self.right - self.left) / self.size
        way = self.mouth - self.eyes
        self.down = way / max(float(np.linalg.norm(way)), 1e-6)
        self.turn = abs(float((nose - self.eyes) @ self.across)) / self.size

    def at(
        self, centre: np.ndarray, wide: float, high: float, below: float = 0.0, cells: int = CELLS
    ) -> np.ndarray:
        """[cells, cells, 3] around a point, or around what lies so far below it."""
        x, y = np.meshgrid(np.linspace(-wide, wide, cells), np.linspace(-high, high, cells) + below)
        places = (centre + self.size * (x[..., None] * self.across + y[..., None] * self.down)).round()
        columns, rows = places.astype(int).transpose(2, 0, 1)
        found: np.ndarray = self.pixels[
            np.clip(rows, 0, self.pixels.shape[0] - 1), np.clip(columns, 0, self.pixels.shape[1] - 1)
        ]
        return found


def _bright(pixels: np.ndarray) -> np.ndarray:
    found: np.ndarray = pixels.mean(-1)
    return found


def _shares(pixels: np.ndarray) -> np.ndarray:
    shares: np.ndarray = pixels / np.maximum(pixels.sum(-1, keepdims=True), 1)
    return shares


def _redness(pixels: np.ndarray) -> np.ndarray:
    shares = _shares(pixels)
    found: np.ndarray = shares[..., 0] - shares[..., 1]
    return found


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-6))

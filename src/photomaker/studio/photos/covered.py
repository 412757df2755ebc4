"""Whether a drawn face is turned far away, or has something before it: a hand, a cup, a phone.

The bundled detector was trained on faces that are turned by less than 30 degrees and gives the points of such a face
whatever it sees, so points alone do not tell. Each margin is linear in a few cues, with the weights of a logistic
regression on drawn people (numbers from 3000500, 3010000, 3020000 and 3800000 on), and limits chosen on those from
3850000 on. `scripts/fit_covered.py` fits such weights on fewer people: similar ones, not the same. None of this holds
for photographs.
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
        "score": -26.67,
        "least": -2.517,
        "balance": -7.439,
        "off": 1.646,
        "lit": 1.698,
        "whites": -3.12,
        "sides": -6.398,
        "smooth": -1.04,
        "mirror": -0.7732,
        "lips": -2.287,
        "turn": -0.01936,
        "cheeks": -24.71,
        "dark": 6.416,
        "rough": -18.8,
        "red": -11.38,
        "redder": 0.7556,
        "one": 11.76,
    },
    "phone": {
        "score": -25.01,
        "least": 0.7397,
        "balance": -0.5664,
        "off": -7.142,
        "lit": -1.519,
        "whites": 0.1704,
        "sides": -1.994,
        "smooth": -1.835,
        "mirror": -5.526,
        "lips": -3.781,
        "turn": -5.96,
        "cheeks": 20.66,
        "dark": 4.494,
        "rough": -8.961,
        "red": -3.427,
        "redder": -1.31,
        "one": 9.74,
    },
    "mouth": {
        "score": -13.46,
        "least": 0.09256,
        "balance": 4.335,
        "off": -1.21,
        "lit": -3.324,
        "whites": 0.4281,
        "sides": -0.3131,
        "smooth": -0.9705,
        "mirror": 0.9315,
        "lips": -4.014,
        "turn": -9.432,
        "cheeks": 8.526,
        "dark": 12.01,
        "rough": -25.1,
        "red": -20.93,
        "redder": -2.904,
        "one": -2.254,
    },
    "turned": {
        "score": -27.9,
        "least": 0.2251,
        "balance": -2.996,
        "off": -1.773,
        "lit": 3.311,
        "whites": -1.903,
        "sides": -0.653,
        "smooth": -1.051,
        "mirror": -1.548,
        "lips": -6.578,
        "turn": 25.55,
        "cheeks": 6.581,
        "dark": 4.177,
        "rough": -12.03,
        "red": -15.51,
        "redder": -1.346,
        "one": 11.81,
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

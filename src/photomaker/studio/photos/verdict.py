"""The verdict on a likeness: same person or not, and how close it comes to the person's own photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from photomaker.faces.base import Calibration


@dataclass(frozen=True)
class Verdict:
    """A likeness in words.

    Attributes:
        likeness: Mean cosine of the picture's face to the photos' faces.
        photos: How many photos it was compared with.
        ceiling: Mean cosine of the photos to each other; None with one photo.
        calibration: The recogniser's calibration; None if it has not been measured.
    """

    likeness: float
    photos: int
    ceiling: float | None
    calibration: Calibration | None

    @classmethod
    def of(cls, likeness: float, photos: np.ndarray, calibration: Calibration | None) -> Verdict:
        """Judge a likeness.

        Args:
            likeness: See above.
            photos: Embeddings of the photos' faces [n, width], of length 1.
            calibration: See above.
        """
        count = len(photos)
        pairs = (photos @ photos.T)[~np.eye(count, dtype=bool)]
        return cls(likeness, count, float(pairs.mean()) if count > 1 else None, calibration)

    @property
    def same(self) -> bool | None:
        """Whether it is the same person; None without a calibration."""
        return None if self.calibration is None else self.likeness >= self.calibration.threshold

    @property
    def share(self) -> float | None:
        """Likeness relative to the ceiling: 0 is a stranger, 1 another photo of the person; None without a ceiling."""
        stranger = 0.0 if self.calibration is None else self.calibration.stranger
        if self.ceiling is None or self.ceiling <= stranger:
            return None
        return max(0.0, (self.likeness - stranger) / (self.ceiling - stranger))

    @property
    def short(self) -> str:
        """The verdict for a table column."""
        person = {True: "same person", False: "another person", None: ""}[self.same]
        if self.calibration is not None and not self.calibration.measured:
            person = f"probably {person}"
        share = "" if self.share is None else f"{100 * self.share:.0f} %"
        return ", ".join(part for part in (person, share) if part)

    @property
    def text(self) -> str:
        """The verdict in one sentence."""
        parts = []
        if self.calibration is not None:
            side = "above" if self.same else "below"
            sure, caution = (
                ("", "")
                if self.calibration.measured
                else ("probably ", ", which is not measured for this recogniser")
            )
            parts.append(
                f"{sure}{'the same' if self.same else 'not the same'} person ({self.likeness:.2f}, {side} the "
                f"threshold {self.calibration.threshold:.2f}{caution})"
            )
        if self.share is not None:
            parts.append(
                f"{100 * self.share:.0f} % of the photos' likeness to each other (ceiling from {self.photos} "
                "photos)"
            )
        return ", ".join(parts) or f"likeness {self.likeness:.2f}; one photo gives no ceiling"

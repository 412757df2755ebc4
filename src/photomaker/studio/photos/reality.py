"""Notes for users who give photographs to networks for drawn people, or have no likeness measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from photomaker.faces.drawn import THRESHOLD, drawn_measure
from photomaker.types import Reference


def reality_notes(references: Sequence[Reference], bundled: bool, faces: str, finds: str | None) -> list[str]:
    """One sentence each; empty if model, face backend and photos fit together.

    Args:
        references: The photos to be used.
        bundled: Whether the model is the bundled small one.
        faces: The requested face backend.
        finds: The face backend with its licence; empty is the bundled networks, None is no backend.
    """
    if bundled:
        # only the bundled networks can recognise drawings; users of other backends have photographs
        return [_DRAWN_ONLY] if finds or are_photographs(references) else []
    if finds is None:
        return [_AUTO if faces == "auto" else _NONE]
    if finds:
        return [f"faces are found and compared by {finds}"] if faces == "auto" else []
    return [_MEANINGLESS] if are_photographs(references) else []


def are_photographs(references: Sequence[Reference]) -> bool:
    """Whether most photos with a detected face look like photographs of real people."""
    found = [(one.image, one.face.score) for one in references if one.face is not None]
    return bool(found) and median(drawn_measure(*one) for one in found) < THRESHOLD


_DRAWN_ONLY = (
    "these look like photographs; the bundled model knows only drawn people, so the pictures will be drawings that "
    "hardly resemble them, and their likeness means nothing; for photographs give an SDXL model with --base and "
    "PhotoMaker's weights with --adapter"
)
_AUTO = (
    "no likeness is measured and no faces are detected: there is no face backend for photographs; install one with: "
    "pip install 'photomaker[faces]' (--faces bundled is for drawn people)"
)
_NONE = "no likeness is measured, because of --faces none"
_MEANINGLESS = (
    "these look like photographs; --faces bundled knows only drawn people, so their likeness means nothing; leave it "
    "out"
)

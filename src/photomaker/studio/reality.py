"""Notes for who brings photographs to networks that know drawn people only, or measures nothing without knowing it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from photomaker.faces.drawn import THRESHOLD, drawn_measure
from photomaker.types import Reference


def reality_notes(references: Sequence[Reference], bundled: bool, faces: str, finds: str | None) -> list[str]:
    """One sentence each; none where model, faces and photos go together.

    Args:
        references: Photos as they will be used.
        bundled: Whether the bundled small model draws.
        faces: What was asked for to find faces.
        finds: What finds and compares them, with its licence; empty is the package's own networks, None is nothing.
    """
    if bundled:
        # only the package's own networks tell drawings by how they see them; who asks for others has photographs
        return [_DRAWN_ONLY] if finds or are_photographs(references) else []
    if finds is None:
        return [_AUTO if faces == "auto" else _NONE]
    if finds:
        return [f"faces are found and compared by {finds}"] if faces == "auto" else []
    return [_MEANINGLESS] if are_photographs(references) else []


def are_photographs(references: Sequence[Reference]) -> bool:
    """Whether these look like photographs of real people and not drawn: most of those in which a face was found."""
    found = [(one.image, one.face.score) for one in references if one.face is not None]
    return bool(found) and median(drawn_measure(*one) for one in found) < THRESHOLD


_DRAWN_ONLY = (
    "these look like photographs; the bundled model knows drawn people only, so the pictures will be drawings that "
    "hardly look like them and their likeness means nothing; for photographs give an SDXL model by --base and "
    "PhotoMaker's weights by --adapter"
)
_AUTO = (
    "no likeness is measured and no face is looked for: nothing here finds faces in photographs; install it with: pip "
    "install 'photomaker[faces]' (--faces bundled measures drawn people)"
)
_NONE = "no likeness is measured, because faces are switched off with --faces none"
_MEANINGLESS = (
    "these look like photographs; --faces bundled knows drawn people only, so their likeness means nothing; leave it "
    "out"
)

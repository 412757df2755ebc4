"""A contact sheet: pictures in labelled rows, each with a line of text below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageOps

from photomaker.images import font, shortened
from photomaker.studio.pictures.gallery import GROUND, INK, LINE, PALE, Cell

CELL, GAP, MARGIN, LABEL = 192, 10, 24, 200
LARGEST = 16_000
"""Longest side of a sheet in pixels; cells shrink to fit."""
_TEXT, _SMALL, _NOTE = 14, 12, 22
_LINES = 8


@dataclass(frozen=True)
class SheetRow:
    """A row.

    Attributes:
        label: Text to its left; long ones are wrapped.
        cells: Its pictures; None leaves a cell empty.
    """

    label: str
    cells: Sequence[Cell | None]


def sheet(title: str, rows: Sequence[SheetRow], most: int = 8) -> Image.Image:
    """Lay out a contact sheet.

    Args:
        title: At the top.
        rows: At least one.
        most: Pictures side by side; a longer row continues below.

    Returns:
        An RGB picture with sides of at most `LARGEST` pixels.
    """
    columns = min(most, max(len(row.cells) for row in rows))
    lines = [-(-max(1, len(row.cells)) // columns) for row in rows]
    width = 2 * MARGIN + LABEL + columns * (CELL + GAP)
    side = min(CELL, (LARGEST - 3 * MARGIN) // max(1, sum(lines)) - _NOTE - GAP)
    side = max(24, side)
    height = 3 * MARGIN + sum(lines) * (side + _NOTE + GAP)
    paper = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(paper)
    pen.text((MARGIN, MARGIN), shortened(title, width - 2 * MARGIN, font(_TEXT)), fill=INK, font=font(_TEXT))
    top = 2 * MARGIN
    for row, count in zip(rows, lines, strict=True):
        pen.line((MARGIN, top, width - MARGIN, top), fill=LINE)
        _write(pen, row.label, (MARGIN, top + GAP), count * (side + _NOTE))
        for place, cell in enumerate(row.cells):
            line, column = divmod(place, columns)
            if cell is not None:
                corner = (MARGIN + LABEL + column * (CELL + GAP), top + GAP + line * (side + _NOTE + GAP))
                _draw(paper, pen, cell, corner, side)
        top += count * (side + _NOTE + GAP)
    return paper


def _draw(
    paper: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int], side: int
) -> None:
    small = ImageOps.contain(cell.image.convert("RGB"), (CELL, side), Image.Resampling.LANCZOS)
    paper.paste(small, (corner[0] + (CELL - small.width) // 2, corner[1] + (side - small.height) // 2))
    face = font(_SMALL)
    line = shortened(cell.text, CELL, face)
    pen.text((corner[0] + CELL / 2, corner[1] + side + 10), line, fill=PALE, font=face, anchor="mm")


def _write(pen: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], height: int) -> None:
    """A label wrapped to the available lines."""
    face, width = font(_TEXT), LABEL - GAP
    room = max(1, min(_LINES, height // (_TEXT + 5)))
    lines: list[str] = []
    for word in text.split():
        if lines and face.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    kept = lines[:room]
    if len(lines) > room:
        kept[-1] += " …"
    for place, line in enumerate(kept):
        pen.text(
            (corner[0], corner[1] + place * (_TEXT + 5)), shortened(line, width, face), fill=INK, font=face
        )

"""The gallery: photos of people, pictures made from them, and mixes, on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from photomaker.images import font, shortened, square

SIDE, GAP, MARGIN = 176, 14, 36
COLUMNS = 6
INK, PALE, LINE, GROUND, ACCENT = "#1c1c1e", "#77777d", "#dcdce0", "#fbfbfa", "#2f6f5e"
_TITLE, _HEADING, _TEXT, _SMALL = 34, 22, 15, 14
_CAPTION = 46
_ARROW = 84


@dataclass(frozen=True)
class Cell:
    """A picture with one or two lines of text below."""

    image: Image.Image
    text: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A person: the photos given, and the pictures made.

    Attributes:
        title: Heading.
        photos: The photos.
        cells: The pictures.
        columns: Pictures in a row.
    """

    title: str
    photos: Sequence[Image.Image]
    cells: Sequence[Cell]


def draw(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> Image.Image:
    """Lay out a gallery.

    Args:
        title: Large text at the top.
        subtitle: One line below it.
        sections: Stacked sections, each with its photos to the left of its pictures.
        footer: One line at the bottom.

    Returns:
        An RGB picture as wide as `COLUMNS` pictures, their gaps and the photos.
    """
    width = 2 * MARGIN + SIDE + _ARROW + COLUMNS * (SIDE + GAP) - GAP
    top = MARGIN + 92
    height = top + sum(_height(section) for section in sections) + 30 + MARGIN
    sheet = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=font(_TITLE))
    pen.text(
        (MARGIN, MARGIN + 48),
        shortened(subtitle, width - 2 * MARGIN, font(_TEXT)),
        fill=PALE,
        font=font(_TEXT),
    )
    for section in sections:
        _draw_section(sheet, pen, section, top)
        top += _height(section)
    pen.text(
        (MARGIN, top + 8), shortened(footer, width - 2 * MARGIN, font(_SMALL)), fill=PALE, font=font(_SMALL)
    )
    return sheet


def _rows(section: Section) -> int:
    return -(-len(section.cells) // COLUMNS)


def _height(section: Section) -> int:
    pictures = _rows(section) * (SIDE + _CAPTION + GAP)
    photos = len(section.photos) * (_photo_side(section) + GAP)
    return 50 + max(pictures, photos) + 14


def _photo_side(section: Section) -> int:
    """Side of the photos: as large as their column allows, but not larger than the pictures."""
    room = _rows(section) * (SIDE + _CAPTION + GAP) - GAP
    return min(SIDE, room // max(1, len(section.photos)) - GAP)


def _draw_section(sheet: Image.Image, pen: ImageDraw.ImageDraw, section: Section, top: int) -> None:
    pen.line((MARGIN, top, sheet.width - MARGIN, top), fill=LINE, width=1)
    pen.text((MARGIN, top + 14), section.title, fill=ACCENT, font=font(_HEADING))
    top += 50
    side = _photo_side(section)
    for place, photo in enumerate(section.photos):
        corner = (MARGIN + (SIDE - side) // 2, top + place * (side + GAP))
        _paste(sheet, photo, corner, side)
    if section.photos:
        middle = top + len(section.photos) * (side + GAP) // 2
        _draw_arrow(pen, MARGIN + SIDE + 20, middle)
    left = MARGIN + SIDE + _ARROW
    for place, cell in enumerate(section.cells):
        row, column = divmod(place, COLUMNS)
        _draw_cell(sheet, pen, cell, (left + column * (SIDE + GAP), top + row * (SIDE + _CAPTION + GAP)))


def _draw_arrow(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    tip = x + _ARROW - 40
    pen.line((x, y, tip, y), fill=PALE, width=3)
    pen.polygon([(tip, y - 8), (tip + 12, y), (tip, y + 8)], fill=PALE)


def _draw_cell(sheet: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int]) -> None:
    x, y = corner
    _paste(sheet, cell.image, corner, SIDE)
    face, small = font(_TEXT), font(_SMALL)
    pen.text(
        (x + SIDE / 2, y + SIDE + 14), shortened(cell.text, SIDE, face), fill=INK, font=face, anchor="mm"
    )
    pen.text(
        (x + SIDE / 2, y + SIDE + 34), shortened(cell.note, SIDE, small), fill=PALE, font=small, anchor="mm"
    )


def _paste(sheet: Image.Image, image: Image.Image, corner: tuple[int, int], side: int) -> None:
    """Paste with rounded corners, drawn at four times the size and scaled down for antialiasing."""
    mask = Image.new("L", (4 * side, 4 * side), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * side - 1, 4 * side - 1), radius=40, fill=255)
    sheet.paste(square(image, side), corner, mask.resize((side, side), Image.Resampling.LANCZOS))

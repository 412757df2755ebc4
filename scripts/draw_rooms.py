"""Draw the rooms of the package and what imports what, read off the code, into docs/images/rooms.svg.

python scripts/draw_rooms.py
python scripts/draw_rooms.py --check    # change nothing; fail where the drawing is not what the code says
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "photomaker"
DRAWING = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, BOX, HEIGHT, GROUND, GAP, MARGIN = 1000, 220, 96, 54, 62, 20
TEXT, LINES = 34, 4
DIRECT, FURTHER = "#00695c", "#c3cfcd"

Arrows = Mapping[str, frozenset[str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; the status is 1 where the drawing is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(argv)
    text = drawing(arrows(PACKAGE), {room: said(PACKAGE / room) for room in rooms(PACKAGE)})
    if not options.check:
        DRAWING.write_text(text, encoding="utf-8")
    elif not DRAWING.exists() or DRAWING.read_text(encoding="utf-8") != text:
        print(
            "docs/images/rooms.svg is not what the code says; run this script without --check",
            file=sys.stderr,
        )
        return 1
    return 0


def rooms(package: Path) -> list[str]:
    """The folders of the package that hold code."""
    return sorted(path.parent.name for path in package.glob("*/__init__.py"))


def said(room: Path) -> str:
    """What a room says of itself: the first sentence of its docstring."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def arrows(package: Path) -> Arrows:
    """Which rooms each room imports, inside functions too; the modules outside rooms are the floor, and left out."""
    known = rooms(package)
    return {
        room: frozenset(
            target
            for path in sorted((package / room).rglob("*.py"))
            for target in _imported(path)
            if target in known and target != room
        )
        for room in known
    }


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "photomaker":
            names = [f"photomaker.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (name.split(".")[1] for name in names if name.startswith("photomaker."))


def levels(found: Arrows) -> dict[str, int]:
    """The height of each room: one above the highest that it imports."""
    heights: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in heights:
            heights[room] = 1 + max((height(target) for target in found[room]), default=0)
        return heights[room]

    for room in found:
        height(room)
    return heights


def direct(found: Arrows) -> set[tuple[str, str]]:
    """The arrows that no chain of other arrows stands for."""

    def reached(room: str) -> frozenset[str]:
        return found[room].union(*(reached(target) for target in found[room]))

    return {
        (room, target)
        for room, targets in found.items()
        for target in targets
        if not any(target in reached(other) for other in targets if other != target)
    }


def drawing(found: Arrows, words: Mapping[str, str]) -> str:
    """The drawing as SVG: rooms as boxes by height, the floor beneath them, arrows from a room to what it imports."""
    places = _places(levels(found))
    floor = max(y for _, y in places.values()) + HEIGHT + GAP
    shown = direct(found)
    lines = [
        _line(places[one], places[other], (one, other) in shown) for one, other in _ordered(found, shown)
    ]
    boxes = [_box(*places[room], BOX, HEIGHT, room, words[room]) for room in sorted(places)]
    ground = _box(
        MARGIN,
        floor,
        WIDTH - 2 * MARGIN,
        GROUND,
        "the floor",
        "types, errors, images, weights, ...: every room imports it",
    )
    total = floor + GROUND + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" '
        'font-family="sans-serif" font-size="13">\n'
        "<title>The rooms of photomaker and what they import</title>\n"
        f"<defs>{_head('direct', DIRECT)}{_head('further', FURTHER)}</defs>\n"
        f'<rect width="{WIDTH}" height="{total}" fill="#ffffff"/>'
    )
    return "\n".join([head, *lines, *boxes, ground, "</svg>"]) + "\n"


def _places(heights: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The upper left corner of each room's box."""
    top = max(heights.values())
    places = {}
    for level in range(top, 0, -1):
        row = sorted(room for room, height in heights.items() if height == level)
        free = (WIDTH - 2 * MARGIN - len(row) * BOX) // (len(row) + 1)
        for number, room in enumerate(row):
            places[room] = (MARGIN + free + number * (BOX + free), MARGIN + (top - level) * (HEIGHT + GAP))
    return places


def _ordered(found: Arrows, shown: set[tuple[str, str]]) -> list[tuple[str, str]]:
    every = sorted((room, target) for room, targets in found.items() for target in targets)
    return sorted(every, key=lambda arrow: arrow in shown)


def _line(start: tuple[int, int], end: tuple[int, int], is_direct: bool) -> str:
    x, y = start[0] + BOX // 2, start[1] + HEIGHT
    to_x, to_y = end[0] + BOX // 2, end[1] - 4
    kind, colour, width = ("direct", DIRECT, 2) if is_direct else ("further", FURTHER, 1)
    bend = GAP if is_direct else GAP // 2
    path = f"M{x},{y} C{x},{y + bend} {to_x},{to_y - bend} {to_x},{to_y}"
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" marker-end="url(#{kind})"/>'
    )


def _head(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 Z" fill="{colour}"/></marker>'
    )


def _box(x: int, y: int, width: int, height: int, name: str, words: str) -> str:
    wrapped = textwrap.shorten(words, TEXT * LINES * width // BOX, placeholder=" ...")
    lines = textwrap.wrap(wrapped, TEXT * width // BOX)
    rows = [
        f'<text x="{x + 12}" y="{y + 40 + 15 * number}" font-size="11.5" fill="#444444">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return "\n".join(
        [
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="#f4f8f7" stroke="{DIRECT}"/>',
            f'<text x="{x + 12}" y="{y + 22}" font-weight="bold" fill="#00443c">{name}</text>',
            *rows,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

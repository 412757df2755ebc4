"""What all plots share, and sheets of pictures, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

from photomaker.errors import SettingsError
from photomaker.images import font, shortened

SIZE = (6.4, 4.2)
DPI = 120
_TEXT = 14
_TEXT_HEIGHT = 52


def check() -> None:
    """Make sure that plots can be drawn, before hours are spent.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "matplotlib is not installed, so the benchmark cannot plot; run `pip install 'photomaker[eval]'`"
        ) from error


def sheet(
    rows: Sequence[Sequence[Image.Image]],
    size: int = 128,
    gap: int = 4,
    heads: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> bytes:
    """Pictures in rows on white, a JPEG-free PNG; rows may have different lengths.

    Args:
        rows: The pictures.
        size: Side of each in pixels.
        gap: Pixels between them.
        heads: What to write above the columns; nothing if it is empty.
        labels: What to write left of the rows; nothing if it is empty.
    """
    width = max(len(row) for row in rows)
    top, left = (_TEXT_HEIGHT if heads else 0), (size if labels else 0)
    canvas = Image.new(
        "RGB", (left + width * (size + gap) + gap, top + len(rows) * (size + gap) + gap), "white"
    )
    pen = ImageDraw.Draw(canvas)
    for x, head in enumerate(heads):
        # a name breaks where its parts meet, as `photomaker_same_budget` does
        _write(pen, head.replace("_", " "), (left + gap + x * (size + gap) + size // 2, top // 2), size)
    for y, label in enumerate(labels):
        _write(pen, label, (left // 2, top + gap + y * (size + gap) + size // 2), left - gap)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            place = left + gap + x * (size + gap), top + gap + y * (size + gap)
            canvas.paste(picture.convert("RGB").resize((size, size)), place)
    data = io.BytesIO()
    canvas.save(data, "PNG", optimize=True)
    return data.getvalue()


def _write(pen: ImageDraw.ImageDraw, text: str, middle: tuple[int, int], width: int) -> None:
    """Write a few words around a place, in as many lines as the width asks for."""
    face, lines = font(_TEXT), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    shown = "\n".join(shortened(line, width, face) for line in lines)
    pen.multiline_text(middle, shown, fill="black", font=face, anchor="mm", align="center")


def canvas(x: str, y: str) -> tuple[Any, Any]:
    """An empty plot with its axes."""
    figure, (axes,) = panels([y], SIZE)
    axes.set_xlabel(x)
    return figure, axes


def panels(heights: Sequence[str], size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """Empty plots side by side on the Agg canvas, without pyplot: nothing global is touched, no display is needed.

    Args:
        heights: What is written at the upright axis of each.
        size: Width and height of all together, in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    every = list(figure.subplots(1, len(heights), squeeze=False)[0])
    for axes, said in zip(every, heights, strict=True):
        axes.set_ylabel(said)
        axes.grid(alpha=0.3)
    return figure, every


def reach(found: Mapping[str, Any]) -> tuple[float, float]:
    """How far a figure's interval reaches below it and above it."""
    return max(0.0, found["value"] - found["low"]), max(0.0, found["high"] - found["value"])


def png(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib is not imported at module level
    """A figure of matplotlib as a PNG file's bytes."""
    data = io.BytesIO()
    # Without the version of matplotlib in the file, equal results give equal bytes.
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()

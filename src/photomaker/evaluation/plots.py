"""Plots of a result and a sheet of its pictures, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

from photomaker.errors import SettingsError
from photomaker.images import font, shortened

SIZE = (6.4, 4.2)
WIDE = (10.2, 3.4)
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


def plots(result: Mapping[str, Any]) -> dict[str, bytes]:
    """Every plot that the result has data for: a short name, and a PNG file's bytes."""
    detail = result["detail"]
    drawn: dict[str, bytes] = {}
    if detail.get("sweep"):
        drawn["tradeoff"] = tradeoff(detail["sweep"], result["chosen"])
    if detail.get("counts"):
        drawn["photos"] = counts(detail["counts"])
    if detail.get("mixing", {}).get("pairs"):
        drawn["mixing"] = mixing(detail["mixing"], result["figures"])
    return drawn


def tradeoff(sweep: Mapping[str, Any], chosen: Mapping[str, Any]) -> bytes:
    """Likeness against prompt accuracy over merge step and guidance; the chosen setting is ringed."""
    figure, axes = canvas("prompt accuracy", "cosine to unseen photos")
    merges = [point for point in sweep["points"] if point["guidance"] is None]
    scales = [point for point in sweep["points"] if point["guidance"] is not None]
    for name, points, label in (("merge", merges, "merge step"), ("guidance", scales, "guidance")):
        if points:
            axes.plot([p["accuracy"] for p in points], [p["likeness"] for p in points], "o-", label=label)
        for point in points:
            axes.annotate(
                f"{point[name]:g}",
                (point["accuracy"], point["likeness"]),
                xytext=(5, 5),
                textcoords="offset points",
            )
    for point in sweep["points"]:
        if (point["merge"], point["guidance"]) == (chosen["merge"], chosen["guidance"]):
            axes.plot(
                point["accuracy"], point["likeness"], "o", ms=16, mfc="none", mec="black", label="chosen"
            )
    axes.axhline(sweep["ceiling"], ls=":", color="grey", label="two real photos")
    axes.set_title(f"{sweep['people']} people of the {sweep['split']} split")
    axes.legend()
    return png(figure)


def counts(found: Mapping[str, Any]) -> bytes:
    """Likeness over the number of photos."""
    figure, axes = canvas("photos of the person", "cosine to unseen photos")
    axes.plot(found["photos"], found["cosine"], "o-")
    axes.set_xticks(found["photos"])
    return png(figure)


def mixing(found: Mapping[str, Any], figures: Mapping[str, Any]) -> bytes:
    """Likeness to A and to B over the weight of B, with intervals."""
    figure, axes = canvas("weight of B", "cosine to unseen photos")
    for side, curve in (("a", found["to_a"]), ("b", found["to_b"])):
        intervals = [figures[f"mixing_{weight:g}_to_{side}"] for weight in found["weights"]]
        axes.plot(found["weights"], curve, "o-", label=f"to {side.upper()}")
        axes.fill_between(
            found["weights"], [one["low"] for one in intervals], [one["high"] for one in intervals], alpha=0.2
        )
    axes.set_title(f"{found['pairs']} pairs")
    axes.legend()
    return png(figure)


def ablation(
    rows: Sequence[Mapping[str, Any]], figures: Mapping[str, str], numbers: bool = False, x: str = ""
) -> bytes:
    """One panel a figure: each row's value with its interval, and its training seeds as dots beside it.

    Args:
        rows: `label`, `figures` and `by_seed` of each.
        figures: Name of each figure and what to write at its axis.
        numbers: Whether the labels are numbers, to be joined by a line.
        x: What to write below.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=WIDE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    places = [float(row["label"]) for row in rows] if numbers else list(range(len(rows)))
    for axes, (name, text) in zip(figure.subplots(1, len(figures)), figures.items(), strict=True):
        for place, row in zip(places, rows, strict=True):
            seeds = [value for value in row["by_seed"][name] if value is not None]
            axes.plot([place + 0.12] * len(seeds), seeds, ".", color="grey", ms=5)
        known = [
            (at, row["figures"][name])
            for at, row in zip(places, rows, strict=True)
            if row["figures"][name]["value"] is not None
        ]
        at, found = [place for place, _ in known], [interval for _, interval in known]
        low = [max(0.0, one["value"] - one["low"]) for one in found]
        high = [max(0.0, one["high"] - one["value"]) for one in found]
        axes.errorbar(
            at, [one["value"] for one in found], yerr=[low, high], fmt="o-" if numbers else "o", capsize=4
        )
        axes.set_xticks(places, [str(row["label"]) for row in rows])
        if not numbers:
            axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.set_xlabel(x)
        axes.set_ylabel(text)
        axes.grid(alpha=0.3)
    return png(figure)


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
    """An empty plot on the Agg canvas, without pyplot: nothing global is touched and no display is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def png(figure: Any) -> bytes:  # noqa: ANN401 - matplotlib is not imported at module level
    """A figure of matplotlib as a PNG file's bytes."""
    data = io.BytesIO()
    # Without the version of matplotlib in the file, equal results give equal bytes.
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()

"""Plots of a comparison, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from photomaker.evaluation.plans.compare.pictures import BASE, REAL
from photomaker.evaluation.report.plots import canvas, png

CHI = 5.991
"""95 % of a two-dimensional normal distribution lies within the root of this many standard deviations."""

OUTLINE = 100
FIDELITY = {"prompt_accuracy": "prompt accuracy", "clip_t": "CLIP-T"}
MARKS = "osD^vP*Xhd"

Document = Mapping[str, Any]
Draws = tuple[np.ndarray, np.ndarray]


def drawings(document: Document, fronts: Mapping[str, Draws], fidelity: str) -> dict[str, bytes]:
    """Every plot that there is data for.

    Args:
        document: What `run.compare` writes as JSON.
        fronts: By method, resampled prompt fidelity and likeness; see `table.front`.
        fidelity: "prompt_accuracy" or "clip_t".
    """
    methods = {name: one for name, one in document["methods"].items() if name not in (REAL, BASE)}
    drawn: dict[str, bytes] = {}
    if fronts:
        drawn["front"] = front(fronts, fidelity)
    timed = {name: one for name, one in methods.items() if "seconds_total" in one["figures"]}
    if timed:
        drawn["seconds"] = seconds(timed)
    photos = {name: one["photos"] for name, one in methods.items() if one.get("photos")}
    if photos:
        drawn["photos"] = curves(photos, "photos of the person")
    merges = {name: one["merges"] for name, one in methods.items() if one.get("merges")}
    if merges:
        drawn["merge"] = curves(merges, "share of text-only steps")
    return drawn


def front(fronts: Mapping[str, Draws], fidelity: str) -> bytes:
    """Likeness against prompt fidelity; each ellipse holds 95 % of the resamples of a method."""
    figure, axes = canvas(FIDELITY[fidelity], "cosine of faces")
    for number, (name, draws) in enumerate(fronts.items()):
        points = np.stack(draws)
        middle, outline = ellipse(points)
        (line,) = axes.plot(*middle, MARKS[number % len(MARKS)], label=name)
        axes.fill(*outline, alpha=0.2, color=line.get_color())
        axes.plot(*outline, color=line.get_color(), lw=0.8)
    axes.set_title("upper right is better; ellipses: 95 % over people")
    _name(axes)
    return png(figure)


def _name(axes: Any) -> None:  # noqa: ANN401 - matplotlib is not imported at module level
    """Say which mark is which, beside the plot: with ten methods a box inside it would hide some."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small", frameon=False)


def ellipse(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle [2] and outline [2, n] of the ellipse that holds 95 % of points [2, samples], if they are normal."""
    points = points[:, ~np.isnan(points).any(0)]
    middle = points.mean(1)
    values, vectors = np.linalg.eigh(np.cov(points))
    angles = np.linspace(0, 2 * np.pi, OUTLINE)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    return middle, middle[:, None] + vectors @ (np.sqrt(np.clip(values, 0, None) * CHI)[:, None] * circle)


def seconds(methods: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Likeness against the seconds from photos to the first picture, on a logarithmic axis."""
    figure, axes = canvas("seconds from photos to the first picture", "cosine of faces")
    for number, (name, found) in enumerate(methods.items()):
        figures = found["figures"]
        likeness = figures.get("sim_unseen_first") or figures["sim_references_first"]
        x = figures["seconds_total"]["value"]
        height = [[likeness["value"] - likeness["low"]], [likeness["high"] - likeness["value"]]]
        axes.errorbar(
            x, likeness["value"], yerr=height, fmt=MARKS[number % len(MARKS)], capsize=3, label=name
        )
    axes.set_xscale("log")
    _name(axes)
    return png(figure)


def curves(methods: Mapping[str, Sequence[Mapping[str, Any]]], x: str) -> bytes:
    """Likeness over one setting, with intervals."""
    figure, axes = canvas(x, "cosine of faces")
    for number, (name, points) in enumerate(methods.items()):
        known = [point for point in points if point["likeness"]]
        at = [point["at"] for point in known]
        middle, low, high = zip(*(point["likeness"] for point in known), strict=True)
        axes.plot(at, middle, f"{MARKS[number % len(MARKS)]}-", label=name)
        axes.fill_between(at, low, high, alpha=0.15)
    axes.set_xticks(sorted({point["at"] for points in methods.values() for point in points}))
    _name(axes)
    return png(figure)

"""Plots of `photomaker evaluate`, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from photomaker.evaluation.report.plots import canvas, png


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

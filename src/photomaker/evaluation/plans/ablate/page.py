"""The page of an ablation: a table and a plot for each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from photomaker.evaluation.plans.ablate.figures import COLUMNS
from photomaker.evaluation.plans.ablate.settings import AXES, PHOTOS, REFERENCE
from photomaker.evaluation.report.files import machine_line
from photomaker.evaluation.report.plots import panels, png, reach
from photomaker.evaluation.report.tables import interval_text, table

WIDE = (10.2, 3.4)


def rows_of(axis: str, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the document has of an axis: `label`, `figures`, `by_seed` and, except for the first row, `difference`."""
    labels = AXES[axis].labels
    if labels is None:
        return [{"label": count, **row} for count, row in document["photos"].items()]
    return [{"label": label, **document["variants"][name]} for name, label in labels.items()]


def drawings(document: Mapping[str, Any]) -> dict[str, bytes]:
    """A plot of each axis of the document, as PNG bytes."""
    drawn = {}
    for axis in document["axes"]:
        below = "photos of the person" if axis == PHOTOS else ""
        drawn[axis] = drawing(rows_of(axis, document), axis == PHOTOS, below)
    return drawn


def drawing(rows: Sequence[Mapping[str, Any]], numbers: bool = False, x: str = "") -> bytes:
    """One panel a figure: each row's value with its interval, and its training seeds as dots beside it.

    Args:
        rows: `label`, `figures` and `by_seed` of each.
        numbers: Whether the labels are numbers, to be joined by a line.
        x: What to write below.
    """
    figure, every = panels([one.title for one in COLUMNS], WIDE)
    places = [float(row["label"]) for row in rows] if numbers else list(range(len(rows)))
    for axes, one in zip(every, COLUMNS, strict=True):
        for place, row in zip(places, rows, strict=True):
            seeds = [value for value in row["by_seed"][one.key] if value is not None]
            axes.plot([place + 0.12] * len(seeds), seeds, ".", color="grey", ms=5)
        figures = [(at, row["figures"][one.key]) for at, row in zip(places, rows, strict=True)]
        known = [(at, found) for at, found in figures if found["value"] is not None]
        axes.errorbar(
            [at for at, _ in known],
            [found["value"] for _, found in known],
            yerr=np.reshape([reach(found) for _, found in known], (-1, 2)).T,
            fmt="o-" if numbers else "o",
            capsize=4,
        )
        axes.set_xticks(places, [str(row["label"]) for row in rows])
        if not numbers:
            axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.set_xlabel(x)
    return png(figure)


def markdown(document: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The whole page.

    Args:
        document: The content of the JSON file.
        names: Axis to the file name of its plot beside the page.
    """
    parts = [_opening(document)]
    for axis in document["axes"]:
        shown = AXES[axis]
        parts += [
            f"## {shown.title}",
            shown.question,
            _axis_table(rows_of(axis, document)),
            f"![{shown.title}]({names[axis]})",
        ]
    return "\n\n".join(parts) + "\n"


def _opening(document: Mapping[str, Any]) -> str:
    settings, shipped = document["settings"], document["shipped"]["figures"]
    models = ", ".join(f"{name} `{value}`" for name, value in document["models"].items())
    seen = settings["steps"] * settings["batch_size"]
    trained = [name for axis in document["axes"] for name in AXES[axis].labels or (REFERENCE,)]
    return "\n".join(
        [
            "# Ablations of PhotoMaker on the synthetic people",
            "",
            f"Made by `{document['command']}`. What each axis means and how to read it: "
            "[docs/ablations.md](../docs/ablations.md).",
            "",
            f"- {len(set(trained))} variants, trained with {settings['seeds']} seeds each, all from the same start: "
            f"{settings['steps']} steps of {settings['batch_size']} pictures of {settings['train_people']} people; "
            f"new projections and fusion, the bundled image tower, {_lora(settings)}",
            f"- scored on {settings['people']} people of the {document['split']} split, {settings['prompts']} prompts, "
            f"one picture each in {settings['sampling_steps']} steps, {document['references']} photos a person, "
            f"guidance {settings['guidance']:g}, merge step at {settings['merge']:g} of the steps",
            f"- {document['interval']}",
            f"- these trainings are short: each has seen {seen:,} pictures. Of the same people and prompts the adapter "
            f"that ships reaches a likeness of {interval_text(shipped['likeness'], True)}, a prompt accuracy of "
            f"{interval_text(shipped['prompt_accuracy'], True)} and a copy-paste of "
            f"{interval_text(shipped['copy_paste'], False)}. Compare the rows of a table with each other only",
            f"- models: {models}",
            f"- {machine_line(document)}",
        ]
    )


def _lora(settings: Mapping[str, Any]) -> str:
    return "a new LoRA" if settings["new_lora"] else "the bundled LoRA"


def _axis_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["", *(cell for one in COLUMNS for cell in (one.title, "less the first row's"))]
    return table([*head, "likeness by seed"], [_row(row) for row in rows])


def _row(row: Mapping[str, Any]) -> list[str]:
    cells = [str(row["label"])]
    for one in COLUMNS:
        for found in (row["figures"], row.get("difference", {})):
            cells.append(interval_text(found[one.key], one.unit == "%") if found else "")
    each = ["-" if value is None else f"{100 * value:.1f}" for value in row["by_seed"]["likeness"]]
    return [*cells, ", ".join(each)]

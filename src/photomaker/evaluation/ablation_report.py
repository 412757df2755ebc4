"""The page of an ablation: a table and a plot for each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from photomaker.evaluation import plots
from photomaker.evaluation.report import interval_text, table

REFERENCE = "reference"
PHOTOS = "photos"
TEXTS: Mapping[str, str] = {
    "likeness": "likeness, over the ceiling",
    "prompt_accuracy": "prompt accuracy",
    "copy_paste": "copy-paste",
}
"""The figures in words."""


@dataclass(frozen=True)
class Axis:
    """One choice of the method, with everything else held.

    Attributes:
        title: Heading of its part of the page.
        question: What it tells apart, in one sentence.
        labels: Variant to what it is called there; the first one is the reference. None for the number of photos, which
            needs no training of its own.
    """

    title: str
    question: str
    labels: Mapping[str, str] | None


AXES: Mapping[str, Axis] = {
    "stacking": Axis(
        "Stacked, average, linear",
        "Each photo has a token of its own, or all photos become one embedding: their mean, or a mean whose shares a "
        "linear layer reads off the photos.",
        {REFERENCE: "stacked", "average": "average", "linear": "linear"},
    ),
    "mask": Axis(
        "Masked loss",
        "For half of the rows the loss counts the person only, or for none.",
        {REFERENCE: "half masked", "no_mask": "none masked"},
    ),
    "noise": Axis(
        "Backgrounds of the ID photos",
        "In training the background of half of the ID photos is noise, or all stay as they are; in drawing all photos "
        "have their backgrounds.",
        {REFERENCE: "noise", "no_noise": "as they are"},
    ),
    "target": Axis(
        "The target among the ID photos",
        "In training the picture to be drawn is never among its own ID photos, or may be.",
        {REFERENCE: "never", "target_among": "may be"},
    ),
    PHOTOS: Axis(
        "Number of ID photos",
        "The reference, trained with one to four photos a row, draws from more and more photos.",
        None,
    ),
    "class_word": Axis(
        "Class-word fusion",
        "The class word's text features are fused with the photos', or the photos' features alone go through the same "
        "layers.",
        {REFERENCE: "fused", "no_class_word": "photos alone"},
    ),
}


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
        drawn[axis] = plots.ablation(rows_of(axis, document), TEXTS, axis == PHOTOS, below)
    return drawn


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
    settings, ran, shipped = document["settings"], document["machine"], document["shipped"]["figures"]
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
            f"- machine: {ran['processor']}, {ran['cores']} cores; processes: {ran['processes']}, threads of each: "
            f"{ran['threads']}; {document['seconds'] / 60:.0f} minutes, less what a resumed run found done",
        ]
    )


def _lora(settings: Mapping[str, Any]) -> str:
    return "a new LoRA" if settings["new_lora"] else "the bundled LoRA"


def _axis_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["", *(cell for text in TEXTS.values() for cell in (text, "less the first row's"))]
    return table([*head, "likeness by seed"], [_row(row) for row in rows])


def _row(row: Mapping[str, Any]) -> list[str]:
    cells = [str(row["label"])]
    for name in TEXTS:
        percent = name != "copy_paste"
        cells.append(interval_text(row["figures"][name], percent))
        cells.append(interval_text(row["difference"][name], percent) if "difference" in row else "")
    each = ["-" if value is None else f"{100 * value:.1f}" for value in row["by_seed"]["likeness"]]
    return [*cells, ", ".join(each)]

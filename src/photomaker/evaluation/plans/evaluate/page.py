"""The page of `photomaker evaluate`: figures with what they must reach, figures beside them, details."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.plans.cast import Part
from photomaker.evaluation.plans.evaluate.columns import BARS, COLUMNS, figures
from photomaker.evaluation.report.files import SCHEMA, machine_line
from photomaker.evaluation.report.tables import interval_text, percent, plain, table

SHAPES: tuple[tuple[str, str, str, str], ...] = (
    ("counts", "rises", "likeness rises with 1, 2, 4 photos", "rises"),
    ("mixing", "monotone", "mixing: likeness to A falls and to B rises", "monotone"),
)
"""Curves that must have a shape: name in the details, its key, the text, and what is asked."""


def verdicts(figures: Mapping[str, Interval], detail: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare figures with their bars; only those that were measured."""
    rows: list[dict[str, Any]] = []
    for name, bar in BARS.items():
        if name in figures:
            value = figures[name].value
            rows.append(
                {
                    "figure": name,
                    "value": value,
                    "must": bar.must,
                    "aim": bar.aim,
                    "reaches_must": bar.reaches(value, bar.must),
                    "reaches_aim": None if bar.aim is None else bar.reaches(value, bar.aim),
                }
            )
    for name, field, _, asked in SHAPES:
        if field in detail.get(name, {}):
            shaped = detail[name][field]
            rows.append(
                {
                    "figure": name, "value": shaped, "must": asked, "aim": None, "reaches_must": shaped,
                    "reaches_aim": None,
                }
            )  # fmt: skip
    return rows


def document(heading: Mapping[str, Any], part: Part, samples: int) -> dict[str, Any]:
    """The whole result as JSON data.

    Args:
        heading: What was run: `name`, `method`, `command`, `settings`, `chosen`, `machine`, `versions`,
            `models`, `judge`, `world`, `seconds`.
        part: What was found.
        samples: Bootstrap resamples.
    """
    found = figures(part, samples)
    verdict = verdicts(found, part.detail)
    return {
        "schema": SCHEMA, **heading, "figures": plain(found), "verdicts": verdict, "detail": dict(part.detail)
    }  # fmt: skip


def markdown(result: Mapping[str, Any], plots: Sequence[str] = ()) -> str:
    """The result as a Markdown page.

    Args:
        result: What `document` gives.
        plots: File names of plots that lie beside the page.
    """
    blocks = [
        _opening(result), _bar_table(result), _beside_table(result), *_detail_tables(result["detail"]),
        "\n".join(f"![{Path(name).stem}]({name})" for name in plots),
    ]  # fmt: skip
    return "\n\n".join(block for block in blocks if block) + "\n"


def _opening(result: Mapping[str, Any]) -> str:
    settings, chosen = result["settings"], result["chosen"]
    models = ", ".join(f"{name} `{value}`" for name, value in result["models"].items())
    return "\n".join(
        [
            f"# {result['name']}: {result['method']}, {settings['people']} {settings['split']} people",
            "",
            f"Made by `{result['command']}`; every interval is a 95 % bootstrap interval over people.",
            "",
            f"- {settings['prompts']} prompts, {settings['seeds']} seeds, {settings['references']} photos a person, "
            f"{settings['steps']} steps",
            f"- merge step at {_or_default(chosen['merge'])} of the steps, "
            f"guidance {_or_default(chosen['guidance'])}",
            f"- settings: {chosen['rule']}",
            f"- models: {models}",
            f"- {machine_line(result)}",
        ]
    )


def _or_default(value: float | None) -> str:
    return "the method's default" if value is None else f"{value:g}"


def _bar_table(result: Mapping[str, Any]) -> str:
    columns = {one.key: one for one in COLUMNS}
    shapes = {name: text for name, _, text, _ in SHAPES}
    rows = []
    for row in result["verdicts"]:
        name = row["figure"]
        reached = _yes(row["reaches_must"]), _yes(row["reaches_aim"])
        if name in shapes:
            rows.append((shapes[name], _yes(row["value"]), row["must"], "", *reached))
            continue
        one, shown = columns[name], result["figures"][name]
        share = one.unit == "%"
        bounds = _bound(row["must"], share), _bound(row["aim"], share)
        rows.append((one.title, interval_text(shown, share), *bounds, *reached))
    return table(("figure", "value (95 % interval)", "must", "aim", "must reached", "aim reached"), rows)


def _beside_table(result: Mapping[str, Any]) -> str:
    figures = result["figures"]
    shown = [one for one in COLUMNS if one.table == "beside" and one.key in figures]
    rows = [(one.title, interval_text(figures[one.key], one.unit == "%")) for one in shown]
    return table(("beside it", "value (95 % interval)"), rows)


def _detail_tables(detail: Mapping[str, Any]) -> list[str]:
    makers: Mapping[str, Callable[[Any], str]] = {
        "faces": _faces, "likeness_by_prompt": _by_prompt, "accuracy_by_attribute": _by_attribute,
        "accuracy_by_prompt": _accuracy_by_prompt, "sweep": _sweep, "mixing": _mixing, "classes": _classes,
        "cost": _cost,
    }  # fmt: skip
    return [maker(detail[name]) for name, maker in makers.items() if detail.get(name)]


def _faces(counts: Mapping[str, Mapping[str, int]]) -> str:
    ours, real = counts["generated_photos"], counts["real_photos"]
    return (
        f"No face was found in {ours['without_face']} of {ours['pictures']} generated photo-style pictures "
        f"and in {real['without_face']} of {real['pictures']} real ones; each counts as cosine 0."
    )


def _by_prompt(rows: Iterable[Mapping[str, Any]]) -> str:
    cells = [
        (row["prompt"], f"{row['cosine']:.3f}", f"{row['ceiling']:.3f}", percent(row["faces_found"]))
        for row in rows
    ]
    return table(("photo-style prompt", "cosine", "real pictures", "faces found"), cells)


def _by_attribute(accuracies: Mapping[str, Mapping[str, float]]) -> str:
    ours, real = accuracies["prompt_accuracy"], accuracies["prompt_accuracy_real"]
    cells = [(name.replace("_", " "), percent(ours[name]), percent(real[name])) for name in ours]
    return table(("attribute", "generated", "real pictures"), cells)


def _accuracy_by_prompt(rows: Iterable[Mapping[str, Any]]) -> str:
    return table(("prompt", "stated and seen"), [(row["prompt"], percent(row["accuracy"])) for row in rows])


def _sweep(sweep: Mapping[str, Any]) -> str:
    cells = [
        (
            f"{point['merge']:g}", _or_default(point["guidance"]), f"{point['likeness']:.3f}",
            "" if point["ratio"] is None else percent(point["ratio"]), percent(point["accuracy"]),
        )
        for point in sweep["points"]
    ]  # fmt: skip
    heading = f"Sweep on {sweep['people']} people of the {sweep['split']} split:"
    head = ("merge", "guidance", "cosine", "over the ceiling", "prompt accuracy")
    return f"{heading}\n\n{table(head, cells)}"


def _mixing(mixing: Mapping[str, Any]) -> str:
    if not mixing["pairs"]:
        return "Too few people of one class for identity mixing."
    curves = zip(mixing["weights"], mixing["to_a"], mixing["to_b"], strict=True)
    cells = [(f"{weight:g}", f"{to_a:.3f}", f"{to_b:.3f}") for weight, to_a, to_b in curves]
    shares = (
        f"Identity mixing, {mixing['pairs']} pairs; likeness to A falls at every step for "
        f"{percent(mixing['pairs_falling_to_a'])} of the pairs, "
        f"to B it rises for {percent(mixing['pairs_rising_to_b'])}:"
    )
    return f"{shares}\n\n{table(('weight of B', 'cosine to A', 'cosine to B'), cells)}"


def _classes(classes: Mapping[str, Any]) -> str:
    cells = [
        (
            change, row["class"], row["changes"], percent(row["accuracy"]),
            f"{row['cosine']:.3f}", f"{row['ceiling']:.3f}",
        )
        for change, found in classes.items()
        for row in found["by_target"]
    ]  # fmt: skip
    return table(("changed", "to", "changes", "seen as asked", "cosine", "drawn in that class"), cells)


def _cost(cost: Mapping[str, Any]) -> str:
    device = cost.get("peak_device_memory_mib")
    cells = [
        ("seconds for one picture", f"{cost['seconds_one']:.2f}"),
        (f"seconds a picture in a batch of {cost['batch']}", f"{cost['seconds_each_of_batch']:.2f}"),
        ("seconds to make an identity", f"{cost['fit_seconds']:.2f}"),
        ("seconds to open the method", f"{cost['open_seconds']:.1f}"),
        ("peak memory of the process, MiB", f"{cost['peak_memory_mib']:.0f}"),
        *([("peak memory of the device, MiB", f"{device:.0f}")] if device is not None else []),
    ]
    return table((f"cost, {cost['threads']} thread(s)", "value"), cells)


def _bound(bound: float | None, share: bool) -> str:
    if bound is None:
        return ""
    return f"{bound:.0%}".replace("%", " %") if share else f"{bound:g}"


def _yes(value: bool | None) -> str:
    return "" if value is None else ("yes" if value else "no")

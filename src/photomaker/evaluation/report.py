"""From figures to a JSON file that stays readable by programs, and a Markdown table that people read."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from photomaker.errors import OutputError
from photomaker.evaluation.bench import Part
from photomaker.evaluation.metrics import Interval

SCHEMA = 1
PACKAGES = ("photomaker", "torch", "diffusers", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class Bar:
    """A figure with what it must reach and what it aims at.

    Attributes:
        figure: Name among the figures.
        text: What it is, for the table.
        must: What it must reach.
        aim: What it aims at; None if nothing more is aimed at.
        lower_is_better: Whether small is good.
        percent: Whether the table shows it as a percentage.
    """

    figure: str
    text: str
    must: float
    aim: float | None = None
    lower_is_better: bool = False
    percent: bool = True

    def reaches(self, value: float | None, bound: float) -> bool:
        """Whether a value is as good as a bound; an undefined one is not."""
        if value is None:
            return False
        return value <= bound if self.lower_is_better else value >= bound


BARS: tuple[Bar, ...] = (
    Bar("likeness", "likeness to unseen photos, over two real photos", 0.75, 0.90),
    Bar("likeness_over_stranger", "likeness, over a stranger of the same class", 4.0, percent=False),
    Bar("retrieval", "retrieval of the person, over real photos", 0.50, 0.80),
    Bar("copy_paste", "copy-paste", 0.08, 0.03, lower_is_better=True, percent=False),
    Bar("prompt_accuracy", "prompt accuracy", 0.93, 0.97),
    Bar("prompt_accuracy_real", "the classifier's own accuracy on real pictures", 0.97),
)

SHAPES: tuple[tuple[str, str, str, str], ...] = (
    ("counts", "rises", "likeness rises with 1, 2, 4 photos", "rises"),
    ("mixing", "monotone", "mixing: likeness to A falls and to B rises", "monotone"),
)
"""Curves that must have a shape: name in the details, its key, the text, and what is asked."""

BESIDE: tuple[tuple[str, str, bool], ...] = (
    ("likeness_cosine", "cosine of generated pictures to unseen photos", False),
    ("ceiling_cosine", "cosine of real pictures to unseen photos (the ceiling)", False),
    ("stranger_cosine", "cosine to photos of strangers of the same class (the floor)", False),
    ("stranger", "the floor, over the ceiling", True),
    ("real_stranger_cosine", "cosine of real pictures to strangers of the same class", False),
    ("text_only_cosine", "cosine of text-only pictures", False),
    ("text_only", "text-only, over the ceiling", True),
    (
        "likeness_cosine_other_styles",
        "cosine in other styles than photo (the recogniser is not made for them)",
        False,
    ),
    ("retrieval_rate", "retrieval rate of generated pictures", True),
    ("retrieval_rate_real", "retrieval rate of real pictures", True),
    ("copy_paste_real", "copy-paste of real pictures (chance)", False),
    ("likeness_third", "likeness by the third recogniser, which was in no loop, over two real photos", True),
    ("retrieval_third", "retrieval by the third recogniser, over real photos", True),
    ("worst_style", "prompt accuracy of the worst style but photo", True),
    ("marks_kept", "moles, freckles and beards seen where they belong, over real photos", True),
    ("sharpness", "fine detail of faces, over real photos", False),
    ("face_kid", "distance of face crops to real ones (KID)", False),
    ("face_kid_real", "the same between two halves of the real photos, as a mean of sizes (chance)", False),
    ("face_diversity", "face diversity, 1 - cosine", False),
    ("face_diversity_real", "face diversity of real pictures", False),
    ("likeness_1_photos", "likeness with 1 photo, over the ceiling", True),
    ("likeness_2_photos", "likeness with 2 photos, over the ceiling", True),
    ("likeness_4_photos", "likeness with 4 photos, over the ceiling", True),
    ("gain_1_to_2_photos", "gain in cosine from 1 to 2 photos", False),
    ("gain_2_to_4_photos", "gain in cosine from 2 to 4 photos", False),
    ("age_accuracy", "age by class word: seen as asked", True),
    ("age_accuracy_real", "the same on real pictures", True),
    ("age_likeness", "age by class word: likeness, over the same person drawn at that age", True),
    ("gender_accuracy", "gender by class word: seen as asked", True),
    ("gender_accuracy_real", "the same on real pictures", True),
    ("gender_likeness", "gender by class word: likeness, over the same person drawn with that gender", True),
    *(
        (f"{name}_{who}_{how}", f"{text}, {said}{where}", percent)
        for who, said in (("person", "the person"), ("text", "the text alone"))
        for name, text, percent in (
            ("landmark_error", "landmark error in pixels", False),
            ("accuracy", "prompt accuracy", True),
            ("faces", "faces found", True),
        )
        for how, where in (("free", " without the ControlNet"), ("followed", " with it"))
    ),
    ("likeness_free", "likeness without the ControlNet, over the ceiling", True),
    ("likeness_followed", "likeness with it, over the ceiling", True),
    ("likeness_change", "likeness that it adds, in points", True),
)
"""Figures shown without a bar: name, text, whether as a percentage."""


def machine(processes: int, threads: int) -> dict[str, Any]:
    """What the run ran on, without names of people or hosts."""
    import torch

    found = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "processes": processes,
        "threads": threads,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of the packages that decide how a picture looks."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def verdicts(part: Part) -> list[dict[str, Any]]:
    """Compare figures with their bars; only those that were measured."""
    rows: list[dict[str, Any]] = []
    for bar in BARS:
        if bar.figure in part.figures:
            value = part.figures[bar.figure].value
            rows.append(
                {
                    "figure": bar.figure,
                    "value": value,
                    "must": bar.must,
                    "aim": bar.aim,
                    "reaches_must": bar.reaches(value, bar.must),
                    "reaches_aim": None if bar.aim is None else bar.reaches(value, bar.aim),
                }
            )
    for name, field, _, asked in SHAPES:
        if field in part.detail.get(name, {}):
            shaped = part.detail[name][field]
            rows.append(
                {
                    "figure": name, "value": shaped, "must": asked, "aim": None, "reaches_must": shaped,
                    "reaches_aim": None,
                }
            )  # fmt: skip
    return rows


def document(heading: Mapping[str, Any], part: Part) -> dict[str, Any]:
    """The whole result as JSON data.

    Args:
        heading: What was run: `name`, `method`, `command`, `settings`, `chosen`, `machine`, `versions`,
            `models`, `judge`, `world`, `seconds`.
        part: What was found.
    """
    return {
        "schema": SCHEMA,
        **heading,
        "figures": {name: asdict(interval) for name, interval in part.figures.items()},
        "verdicts": verdicts(part),
        "detail": dict(part.detail),
    }


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
    settings, chosen, ran = result["settings"], result["chosen"], result["machine"]
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
            f"- machine: {ran['processor']}, {ran['cores']} cores; processes: {ran['processes']}, "
            f"threads of each: {ran['threads']}"
            + (f", {ran['accelerator']}" if "accelerator" in ran else "")
            + f"; {result['seconds'] / 60:.0f} minutes, less what a resumed run found done",
        ]
    )


def _or_default(value: float | None) -> str:
    return "the method's default" if value is None else f"{value:g}"


def _bar_table(result: Mapping[str, Any]) -> str:
    texts = {bar.figure: (bar.text, bar) for bar in BARS}
    shapes = {name: text for name, _, text, _ in SHAPES}
    rows = []
    for row in result["verdicts"]:
        name = row["figure"]
        must, aim = _yes(row["reaches_must"]), _yes(row["reaches_aim"])
        if name in shapes:
            rows.append((shapes[name], _yes(row["value"]), row["must"], "", must, aim))
            continue
        text, bar = texts[name]
        rows.append(
            (
                text,
                interval_text(result["figures"][name], bar.percent),
                _bound(bar, bar.must),
                _bound(bar, bar.aim),
                must,
                aim,
            )
        )
    return table(("figure", "value (95 % interval)", "must", "aim", "must reached", "aim reached"), rows)


def _beside_table(result: Mapping[str, Any]) -> str:
    figures = result["figures"]
    rows = [
        (text, interval_text(figures[name], percent)) for name, text, percent in BESIDE if name in figures
    ]
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
        (row["prompt"], f"{row['cosine']:.3f}", f"{row['ceiling']:.3f}", _percent(row["faces_found"]))
        for row in rows
    ]
    return table(("photo-style prompt", "cosine", "real pictures", "faces found"), cells)


def _by_attribute(accuracies: Mapping[str, Mapping[str, float]]) -> str:
    ours, real = accuracies["prompt_accuracy"], accuracies["prompt_accuracy_real"]
    cells = [(name.replace("_", " "), _percent(ours[name]), _percent(real[name])) for name in ours]
    return table(("attribute", "generated", "real pictures"), cells)


def _accuracy_by_prompt(rows: Iterable[Mapping[str, Any]]) -> str:
    return table(("prompt", "stated and seen"), [(row["prompt"], _percent(row["accuracy"])) for row in rows])


def _sweep(sweep: Mapping[str, Any]) -> str:
    cells = [
        (
            f"{point['merge']:g}", _or_default(point["guidance"]), f"{point['likeness']:.3f}",
            "" if point["ratio"] is None else _percent(point["ratio"]), _percent(point["accuracy"]),
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
        f"{_percent(mixing['pairs_falling_to_a'])} of the pairs, "
        f"to B it rises for {_percent(mixing['pairs_rising_to_b'])}:"
    )
    return f"{shares}\n\n{table(('weight of B', 'cosine to A', 'cosine to B'), cells)}"


def _classes(classes: Mapping[str, Any]) -> str:
    cells = [
        (
            change, row["class"], row["changes"], _percent(row["accuracy"]),
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


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; empty if there are no rows."""
    lines = [" | ".join(map(str, row)) for row in rows]
    if not lines:
        return ""
    return "\n".join(f"| {line} |" for line in (" | ".join(head), "|".join("---" for _ in head), *lines))


def interval_text(figure: Mapping[str, Any] | Interval, percent: bool) -> str:
    """A figure with its interval in words, as a percentage or with three digits."""
    found = asdict(figure) if isinstance(figure, Interval) else figure
    if found["value"] is None:
        return "undefined"
    show = _percent if percent else _number
    return f"{show(found['value'])} ({show(found['low'])} to {show(found['high'])})"


def _bound(bar: Bar, bound: float | None) -> str:
    if bound is None:
        return ""
    return f"{bound:.0%}".replace("%", " %") if bar.percent else f"{bound:g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _yes(value: bool | None) -> str:
    return "" if value is None else ("yes" if value else "no")


def write(path: Path, content: str | bytes) -> Path:
    """Write a file so that it is whole or not there.

    Raises:
        OutputError: It cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=path.name, suffix=".part", delete=False
        ) as part:
            part.write(data)
        part_path = Path(part.name)
        part_path.chmod(0o644)
        part_path.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another output folder") from error
    return path


def as_json(result: Mapping[str, Any]) -> str:
    """JSON text with sorted keys, six digits, and no `NaN`, which JSON does not know."""
    return json.dumps(_rounded(result), indent=2, sort_keys=True, allow_nan=False, default=str) + "\n"


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON data
    if isinstance(value, Mapping):
        return {str(name): _rounded(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6)
    return value

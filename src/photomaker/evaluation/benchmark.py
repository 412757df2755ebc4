"""`photomaker evaluate`: run the parts of the benchmark and write what they found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from photomaker.evaluation import plots, report
from photomaker.evaluation.bench import Bench, Part
from photomaker.evaluation.parts import classes, cost, counts, main, mixing, quality, structure, sweep
from photomaker.evaluation.prompts import BenchPrompt
from photomaker.evaluation.settings import PARTS, BenchmarkSettings
from photomaker.evaluation.workshop import Progress, Tools, Workshop, prepare

CACHE = ".cache"
SHEET_PEOPLE = 6
MEASURES: Mapping[str, Callable[[Bench], Part]] = {
    "main": main.measure,
    "quality": quality.measure,
    "counts": counts.measure,
    "mixing": mixing.measure,
    "classes": classes.measure,
    "structure": structure.measure,
}

__all__ = ["PARTS", "BenchmarkSettings", "Result", "Tools", "run"]


@dataclass(frozen=True)
class Result:
    """What a run wrote.

    Attributes:
        json: The figures for programs.
        markdown: The tables for people.
        plots: PNG files beside them.
        document: The content of the JSON file.
    """

    json: Path
    markdown: Path
    plots: tuple[Path, ...]
    document: Mapping[str, Any]

    @property
    def reached(self) -> bool:
        """Whether every measured figure reaches what it must."""
        return all(row["reaches_must"] for row in self.document["verdicts"])


def run(settings: BenchmarkSettings, progress: Progress | None = None, tools: Tools | None = None) -> Result:
    """Run the benchmark and write `<name>.json`, `<name>.md` and PNG plots into `settings.out`.

    Pictures and measurements are kept in `<out>/.cache/<name>`, so that an interrupted run continues where it
    stopped. They are found again only while models, judge, people and settings stay the same; after a change
    of the method's code, set `resume` to False.

    Args:
        settings: What to run.
        progress: Called with the stage, the tasks done and the tasks there are; None shows bars.
        tools: How people, judge and method are opened; None opens the bundled ones and the registry's method.

    Raises:
        SettingsError: The method is unknown, or matplotlib is missing.
        WeightsError: A model file is missing or altered.
        OutputError: The results cannot be written there.
    """
    plots.check()
    tools = tools or Tools()
    cache = settings.out / CACHE / settings.title
    prepare(cache, keep=True)
    start = time.perf_counter()
    models = dict(tools.models(settings))
    judge, world = tools.judge().fingerprint(), tools.world().fingerprint()
    fingerprint = " ".join([settings.method, settings.dtype, *models.values(), judge, world])
    with Workshop(settings, tools, cache, fingerprint, progress) as workshop:
        choice = sweep.choose(settings, workshop)
        bench = Bench(settings, workshop, choice.merge, choice.guidance)
        part = _measure(bench, tools, choice.part)
        pictures = _sheet(bench) if "main" in settings.parts else None
    heading = _heading(settings, choice, {"models": models, "judge": judge, "world": world})
    document = report.document({**heading, "seconds": time.perf_counter() - start}, part)
    return _write(settings, document, pictures)


def _measure(bench: Bench, tools: Tools, found: Part) -> Part:
    """Run the parts that were asked for, in their order, and join what they find."""
    figures, detail = dict(found.figures), dict(found.detail)
    for name, measure in MEASURES.items():
        if name in bench.settings.parts:
            part = measure(bench)
            figures.update(part.figures)
            detail.update(part.detail)
    if "cost" in bench.settings.parts:
        detail.update(cost.measure(bench, tools).detail)
    return Part(figures, detail)


def _heading(settings: BenchmarkSettings, choice: sweep.Choice, hashes: Mapping[str, Any]) -> dict[str, Any]:
    said = {
        name: value
        for name, value in asdict(settings).items()
        if name not in ("out", "base", "adapter", "control", "resume")
    }
    return {
        "name": settings.title,
        "method": settings.method,
        "command": command(settings),
        "settings": said,
        "chosen": {"merge": choice.merge, "guidance": choice.guidance, "rule": choice.rule},
        "machine": report.machine(settings.processes, settings.threads),
        "versions": report.versions(),
        **hashes,
    }


def command(settings: BenchmarkSettings) -> str:
    """The command line that makes these figures: what differs from the defaults, without folders."""
    plain = BenchmarkSettings()
    words = ["photomaker evaluate"]
    for name, value in asdict(settings).items():
        if name in ("out", "processes", "threads", "resume") or value == getattr(plain, name):
            continue
        given = Path(value).name if name in ("base", "adapter", "control") else value
        shown = ",".join(map(str, given)) if isinstance(given, tuple) else str(given)
        words.append(f"--{name.replace('_', '-')} {shown}")
    return " ".join(words)


def _sheet(bench: Bench) -> bytes:
    """For a few people: their reference photos, then one picture of every prompt."""
    rows = []
    for person in bench.people[:SHEET_PEOPLE]:
        references = bench.workshop.world.photos(person, "references", bench.settings.references)
        task = bench.picture_task(person, bench.prompts, bench.settings.seeds)
        rows.append([*references, *bench.workshop.pictures(task)[:: bench.settings.seeds]])
    return plots.sheet(rows)


def _write(settings: BenchmarkSettings, document: Mapping[str, Any], pictures: bytes | None) -> Result:
    images = plots.plots(document)
    if pictures is not None:
        images["pictures"] = pictures
    names = {f"{settings.title}_{name}.png": data for name, data in images.items()}
    paths = tuple(report.write(settings.out / name, data) for name, data in names.items())
    page = report.markdown(document, list(names))
    return Result(
        report.write(settings.out / f"{settings.title}.json", report.as_json(document)),
        report.write(settings.out / f"{settings.title}.md", page),
        paths,
        document,
    )


def prompt_table(prompts: tuple[BenchPrompt, ...]) -> str:
    """The prompts and what each states, as a Markdown table."""
    rows = [
        f"| {prompt.name} | {prompt.template} | {', '.join(prompt.states.values())} |" for prompt in prompts
    ]
    return "\n".join(["| prompt | text | states |", "|---|---|---|", *rows])

"""`photomaker evaluate`: one method in depth, part by part, and the page of what they found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from photomaker.evaluation.plans.cast import Cast, Part, open_runner
from photomaker.evaluation.plans.evaluate import (
    class_words,
    cost,
    likeness,
    mixing,
    page,
    photo_counts,
    quality,
    structure,
    sweep,
)
from photomaker.evaluation.plans.evaluate.plots import plots as drawn
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.prompts import BenchPrompt
from photomaker.evaluation.report import files, plots
from photomaker.evaluation.report.files import CACHE, Result
from photomaker.evaluation.running.runner import Progress
from photomaker.evaluation.running.worker import Tools

SHEET_PEOPLE = 6
MEASURES: Mapping[str, Callable[[Cast], Part]] = {
    "main": likeness.measure,
    "quality": quality.measure,
    "counts": photo_counts.measure,
    "mixing": mixing.measure,
    "classes": class_words.measure,
    "structure": structure.measure,
}
UNSAID = ("out", "base", "adapter", "control", "resume")
"""Settings that the results do not name: folders of somebody's machine."""


def run(settings: EvaluationSettings, progress: Progress | None = None, tools: Tools | None = None) -> Result:
    """Run the parts and write `<name>.json`, `<name>.md` and PNG plots into `settings.out`.

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
    start = time.perf_counter()
    models = dict(tools.models(settings.entry, settings))
    judge, world = tools.judged_by(settings), tools.world(settings).fingerprint()
    mark = " ".join([settings.method, settings.dtype, *models.values(), judge, world])
    with open_runner(settings, tools, settings.out / CACHE / settings.title, mark, progress) as runner:
        choice = sweep.choose(settings, runner)
        cast = Cast(settings, runner, choice.merge, choice.guidance)
        part = _measure(cast, tools, choice.part)
        pictures = _sheet(cast) if "main" in settings.parts else None
    heading = _heading(settings, choice, {"models": models, "judge": judge, "world": world})
    document = page.document({**heading, "seconds": time.perf_counter() - start}, part, settings.samples)
    return _publish(settings, document, pictures)


def _measure(cast: Cast, tools: Tools, found: Part) -> Part:
    """Run the parts that were asked for, in their order, and join what they find."""
    parts = [found, *(measure(cast) for name, measure in MEASURES.items() if name in cast.settings.parts)]
    if "cost" in cast.settings.parts:
        parts.append(cost.measure(cast, tools))
    return Part.joined(parts)


def _heading(settings: EvaluationSettings, choice: sweep.Choice, hashes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": settings.title,
        "method": settings.method,
        "settings": {name: value for name, value in asdict(settings).items() if name not in UNSAID},
        "chosen": {"merge": choice.merge, "guidance": choice.guidance, "rule": choice.rule},
        **files.heading(command(settings), settings.processes, settings.threads),
        **hashes,
    }


def command(settings: EvaluationSettings) -> str:
    """The command line that makes these figures."""
    without = ("out", "processes", "threads", "resume")
    return files.command("evaluate", settings, EvaluationSettings(), without)


def _sheet(cast: Cast) -> bytes:
    """For a few people: their reference photos, then one picture of every prompt."""
    rows = []
    for person in cast.people[:SHEET_PEOPLE]:
        references = cast.runner.world.photos(person, "references", cast.settings.references)
        task = cast.picture_task(person, cast.prompts, cast.settings.seeds)
        rows.append([*references, *cast.runner.pictures(task)[:: cast.settings.seeds]])
    return plots.sheet(rows)


def _publish(settings: EvaluationSettings, document: Mapping[str, Any], pictures: bytes | None) -> Result:
    images = {**drawn(document), **({} if pictures is None else {"pictures": pictures})}
    named = {f"{settings.title}_{name}.png": data for name, data in images.items()}
    text = page.markdown(document, list(named))
    return files.publish(settings.out / settings.title, document, {"md": text}, named)


def prompt_table(prompts: tuple[BenchPrompt, ...]) -> str:
    """The prompts and what each states, as a Markdown table."""
    rows = [
        f"| {prompt.name} | {prompt.template} | {', '.join(prompt.states.values())} |" for prompt in prompts
    ]
    return "\n".join(["| prompt | text | states |", "|---|---|---|", *rows])

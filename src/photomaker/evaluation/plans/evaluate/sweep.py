"""Merge step and guidance on people who are not scored: the trade-off curve, and the settings chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from photomaker.evaluation import metrics
from photomaker.evaluation.metrics import Point
from photomaker.evaluation.plans.cast import Cast, Part
from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings
from photomaker.evaluation.running.runner import Runner

RULE = (
    "best likeness among the settings whose prompt accuracy reaches {bar:g} % on {people} people of the "
    "{split} split (if none does, best prompt accuracy): merge step at the default guidance, then guidance"
)


@dataclass(frozen=True)
class Choice:
    """The settings that a run uses, and how they came about.

    Attributes:
        merge: Share of text-only steps; None is the method's default.
        guidance: Guidance scale; None is the method's default.
        rule: How they were chosen, in words.
        part: What the sweep found; empty without a sweep.
    """

    merge: float | None
    guidance: float | None
    rule: str
    part: Part


def choose(settings: EvaluationSettings, runner: Runner) -> Choice:
    """Choose merge step and guidance on people of the other split; a value given in the settings stays."""
    if "sweep" not in settings.parts:
        return Choice(settings.merge, settings.guidance, "given, or the method's default", Part())
    cast = _sweep_cast(settings, runner)
    points = [_point(cast, merge, settings.guidance) for merge in settings.merges]
    chosen = metrics.choose(points, settings.accuracy_bar)
    merge = settings.merge if settings.merge is not None else chosen.merge
    if settings.guidance is None and settings.guidances:
        others = [_point(cast, merge, guidance) for guidance in settings.guidances]
        points += others
        same_merge = [point for point in points if point.merge == merge]
        chosen = metrics.choose(same_merge, settings.accuracy_bar)
    guidance = settings.guidance if settings.guidance is not None else chosen.guidance
    rule = RULE.format(bar=100 * settings.accuracy_bar, people=len(cast.people), split=cast.settings.split)
    return Choice(merge, guidance, rule, Part({}, {"sweep": _detail(cast, points)}))


def _sweep_cast(settings: EvaluationSettings, runner: Runner) -> Cast:
    other = replace(
        settings,
        split=settings.sweep_split,
        people=settings.sweep_people,
        gallery=settings.sweep_people,
        seeds=1,
    )
    return Cast(other, runner, settings.merge, settings.guidance)


def _point(cast: Cast, merge: float, guidance: float | None) -> Point:
    """Likeness and prompt accuracy at one setting, on the same people, prompts and noise."""
    label = "" if guidance is None else f", guidance {guidance:g}"
    stage = f"sweep: merge {merge:g}{label}"
    grid = cast.generate(stage, cast.people, cast.prompts, 1, merge=merge, guidance=guidance)
    likeness = float(grid.photos().score(cast.likeness).mean())
    return Point(merge, guidance, likeness, metrics.prompt_accuracy(*grid.accuracy(cast.classes)))


def _detail(cast: Cast, points: list[Point]) -> dict[str, Any]:
    ceiling = float(cast.real.photos().score(cast.likeness).mean())
    rows = [{**asdict(point), "ratio": point.likeness / ceiling if ceiling > 0 else None} for point in points]
    return {"split": cast.settings.split, "people": len(cast.people), "ceiling": ceiling, "points": rows}

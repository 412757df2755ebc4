"""What `photomaker speed` found: a table, a plot, and the ways that reach what a preset must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from photomaker.evaluation.metrics import Interval
from photomaker.evaluation.plans.speed.settings import Row, SpeedSettings
from photomaker.evaluation.report import files
from photomaker.evaluation.report.plots import panels, png, reach
from photomaker.evaluation.report.tables import interval_text, table
from photomaker.speeds import EXACT, FAST, PRESETS, TURBO
from photomaker.types import NO_SHORTCUTS, Sampling


@dataclass(frozen=True)
class Bar:
    """What a preset must reach.

    Attributes:
        share: Most of the exact way's time.
        likeness: Least share of its likeness.
        sharpness: Least share of its sharpness: a recogniser finds people in blurred pictures too.
        points: Least prompt accuracy above its, in shares.
    """

    share: float
    likeness: float
    sharpness: float
    points: float = -0.01

    def reached(self, row: Row) -> bool:
        """Whether a way is as fast and as good; by its values, not by their intervals."""
        figures = {name: one.value or 0.0 for name, one in row.figures.items()}
        good = figures["likeness_share"] >= self.likeness and figures["accuracy_points"] >= self.points
        return good and row.share <= self.share and figures["sharpness_share"] >= self.sharpness


BARS: Mapping[str, Bar] = {FAST: Bar(0.5, 0.98, 0.95), TURBO: Bar(0.2, 0.95, 0.8)}


def document(settings: SpeedSettings, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything as JSON data."""
    return {
        **files.heading(command(settings), settings.processes, settings.threads),
        "settings": {name: value for name, value in asdict(settings).items() if name != "out"},
        "ways": [asdict(row) for row in rows],
        "reach": {name: [row.name for row in rows if bar.reached(row)] for name, bar in BARS.items()},
    }


def command(settings: SpeedSettings) -> str:
    """The command line that makes these figures."""
    return files.command("speed", settings, SpeedSettings(), ("out", "processes", "threads"), ";")


def markdown(settings: SpeedSettings, rows: Sequence[Row], plot: str) -> str:
    """The page."""
    exact = next(row for row in rows if row.name == EXACT)
    machine = files.machine(settings.processes, settings.threads)
    parts = [
        "# How fast, how like her",
        f"Made by `{command(settings)}` on {settings.people} {settings.split} people, {settings.prompts} prompts, "
        f"{settings.seeds} seed{'s' if settings.seeds > 1 else ''}; {machine['processor']}, {settings.threads} "
        f"thread{'s' if settings.threads > 1 else ''}. The bundled model in {exact.sampling.steps} steps is 1; "
        "intervals are 95 % over people, on the same people, prompts and noise. Time is the median of "
        f"{settings.rounds} rounds, each beside the exact way in the same minute; work is counted in operations "
        "of a picture and depends on nothing else.",
        f"![Likeness, prompt accuracy and sharpness against time]({plot})",
        _table(rows),
        _reached(rows),
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> str:
    head = (
        "way", "how", "time ↓", "work ↓", "likeness, of exact's ↑", "prompt accuracy, points above exact's ↑",
        "sharpness, of exact's", "diversity, of exact's", "seconds",
    )  # fmt: skip
    exact = next(row for row in rows if row.name == EXACT)
    cells = []
    for row in rows:
        figures = row.figures
        cells.append(
            (
                row.name,
                told(row.sampling),
                f"{row.share:.2f}",
                f"{row.tflop / exact.tflop:.2f}" if exact.tflop else "-",
                _percent(figures["likeness_share"]),
                _points(figures["accuracy_points"]),
                _percent(figures["sharpness_share"]),
                _percent(figures["diversity_share"]),
                f"{row.seconds:.2f}",
            )
        )
    return table(head, cells)


def told(sampling: Sampling) -> str:
    """A way of drawing in a few words."""
    words = [f"{sampling.steps} steps"]
    if sampling.scheduler:
        words.append(sampling.scheduler)
    if (sampling.guidance_start, sampling.guidance_stop) != (0, 1):
        words.append(f"guidance {sampling.guidance_start:g} to {sampling.guidance_stop:g}")
    short = sampling.shortcuts
    if short != NO_SHORTCUTS:
        if short.words_after < 1:
            words.append(f"words to {short.words_after:g}")
        if short.deep_every > 1:
            words.append(
                f"deep layers every {short.deep_every}, from {short.deep_after:g}, outer {short.outer}"
            )
    return ", ".join(words)


def _percent(one: Interval) -> str:
    return interval_text(one, True)


def _points(one: Interval) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "-"
    return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


def _reached(rows: Sequence[Row]) -> str:
    lines = []
    by_name = {row.name: row for row in rows}
    for name, bar in BARS.items():
        wanted = (
            f"*{name}* must take at most {bar.share:g} of the time at {100 * bar.likeness:g} % of the likeness, "
            f"{100 * bar.points:+g} point of prompt accuracy and {100 * bar.sharpness:g} % of the sharpness"
        )
        found = ", ".join(row.name for row in rows if bar.reached(row)) or "none"
        own = ""
        if name in PRESETS and name in by_name:
            own = f"; the preset does{'' if bar.reached(by_name[name]) else ' not'}"
        lines.append(f"- {wanted}. Ways that do: {found}{own}.")
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> bytes:
    """Likeness, prompt accuracy and sharpness against time, a PNG."""
    shown = {
        "likeness_share": "likeness, of exact's",
        "accuracy_points": "prompt accuracy, above exact's",
        "sharpness_share": "sharpness, of exact's",
    }
    figure, every = panels(list(shown.values()), (13, 4.6))
    for axes, name in zip(every, shown, strict=True):
        for row in rows:
            one = row.figures[name]
            if one.value is None or one.low is None or one.high is None:
                continue
            preset = row.name in PRESETS
            error = np.reshape(reach(vars(one)), (2, 1))
            axes.errorbar(row.share, one.value, yerr=error, fmt="o", ms=7 if preset else 4, capsize=2,
                          color="crimson" if preset else "steelblue", elinewidth=0.7)  # fmt: skip
            axes.annotate(
                row.name, (row.share, one.value), fontsize=6, xytext=(3, 3), textcoords="offset points"
            )
        axes.set_xlabel("time of a picture, of exact's")
        axes.set_xlim(left=0)
    return png(figure)

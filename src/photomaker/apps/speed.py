"""`photomaker speed`: the door to the curve of speed and likeness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from photomaker.apps import terminal


def run(given: Mapping[str, Any]) -> None:
    """Measure, print the table and write the page.

    Args:
        given: Options that were given, under the names of `SpeedSettings`; ways as text with semicolons.

    Raises:
        PhotoMakerError: An option is out of range, a model is missing, or the results cannot be written.
    """
    from photomaker.evaluation.report import plots
    from photomaker.evaluation.plans.speed import plan as speed
    from photomaker.evaluation.plans.speed import page as speed_report

    values = {name: getattr(value, "value", value) for name, value in given.items()}
    if "ways" in values:
        values["ways"] = tuple(one.strip() for one in values["ways"].split(";") if one.strip())
    settings = speed.SpeedSettings(**values)
    plots.check()
    paths = speed_report.write(settings, speed.run(settings))
    terminal.say(paths[1].read_text(encoding="utf-8"))
    for path in paths:
        terminal.say(str(path))

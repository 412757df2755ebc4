"""`photomaker speed`: measures the trade-off between speed and likeness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from photomaker.apps import terminal


def run(given: Mapping[str, Any]) -> None:
    """Measure, print the table and write the page.

    Args:
        given: The given options, with the names of `SpeedSettings`; variants as text separated by semicolons.

    Raises:
        PhotoMakerError: An option is out of range, a model is missing, or the results cannot be written.
    """
    from photomaker.evaluation import plots, speed, speed_report

    values = {name: getattr(value, "value", value) for name, value in given.items()}
    if "ways" in values:
        values["ways"] = tuple(one.strip() for one in values["ways"].split(";") if one.strip())
    settings = speed.SpeedSettings(**values)
    plots.check()
    paths = speed_report.write(settings, speed.run(settings))
    terminal.say(paths[1].read_text(encoding="utf-8"))
    for path in paths:
        terminal.say(str(path))

"""`photomaker evaluate`: runs the benchmark of one method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from photomaker.apps import terminal
from photomaker.errors import SettingsError

NUMBERS = ("merges", "guidances")
WORDS = ("parts",)


def run(given: Mapping[str, Any]) -> None:
    """Run the benchmark and print its tables.

    Args:
        given: The given options, with the names of `BenchmarkSettings`; lists as comma-separated text.

    Raises:
        PhotoMakerError: An option is out of range, a model is missing, or the results cannot be written.
    """
    from photomaker.evaluation.benchmark import run as run_benchmark
    from photomaker.evaluation.settings import BenchmarkSettings

    settings = BenchmarkSettings(**{name: _value(name, value) for name, value in given.items()})
    result = run_benchmark(settings)
    terminal.say(result.markdown.read_text(encoding="utf-8"))
    for path in (result.json, result.markdown, *result.plots):
        terminal.say(str(path))


def _value(name: str, value: Any) -> Any:  # noqa: ANN401 - as various as the settings
    if name not in NUMBERS + WORDS or not isinstance(value, str):
        return getattr(value, "value", value)
    items = [item.strip() for item in value.split(",") if item.strip()]
    if name in WORDS:
        return tuple(items)
    try:
        return tuple(float(item) for item in items)
    except ValueError as error:
        raise SettingsError(
            f"{name} is {value!r}; give numbers separated by commas, for example 0,0.2,0.4"
        ) from error

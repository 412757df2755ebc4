"""What the commands that measure share: options that are lists, and how results are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from photomaker.apps import terminal
from photomaker.errors import SettingsError

if TYPE_CHECKING:
    from photomaker.evaluation.report.files import Result

Numbers = tuple[Callable[[str], float], str, str]
"""How a number is read, what the numbers are called in a message, and an example of several."""


def options(
    given: Mapping[str, Any], words: tuple[str, ...] = (), numbers: Mapping[str, Numbers] | None = None
) -> dict[str, Any]:
    """Options of the command line as settings.

    Args:
        given: Those that were given; lists as text with commas, ways to draw with semicolons.
        words: Names of options that are lists of words.
        numbers: Names of options that are lists of numbers.

    Raises:
        SettingsError: What should be a list of numbers is none.
    """
    found = {name: getattr(value, "value", value) for name, value in given.items()}
    for name in words:
        if name in found:
            found[name] = _parts(found[name], ";" if name == "ways" else ",")
    for name, (read, called, example) in (numbers or {}).items():
        if name not in found:
            continue
        try:
            found[name] = tuple(read(item) for item in _parts(found[name], ","))
        except ValueError as error:
            raise SettingsError(
                f"{name} is {found[name]!r}; give {called} with commas between them, for example {example}"
            ) from error
    return found


def _parts(text: str, comma: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(comma) if item.strip())


def show(result: Result) -> None:
    """Print the page of a run and say where its files are."""
    terminal.say(result.markdown.read_text(encoding="utf-8"))
    for path in (*result.files, *result.plots):
        terminal.say(str(path))


def evaluate(given: Mapping[str, Any]) -> None:
    """Measure one method in depth and print its tables.

    Args:
        given: Options that were given, under the names of `EvaluationSettings`; lists as text with commas.

    Raises:
        PhotoMakerError: An option is out of range, a model is missing, or the results cannot be written.
    """
    from photomaker.evaluation.plans.evaluate import plan
    from photomaker.evaluation.plans.evaluate.settings import EvaluationSettings

    numbers: Numbers = (float, "numbers", "0,0.2,0.4")
    wanted = options(given, words=("parts",), numbers={"merges": numbers, "guidances": numbers})
    show(plan.run(EvaluationSettings(**wanted)))


def speed(given: Mapping[str, Any]) -> None:
    """Measure what drawing with less work costs, and print the table.

    Args:
        given: The given options, with the names of `SpeedSettings`; variants as text separated by semicolons.

    Raises:
        PhotoMakerError: An option is out of range, a model is missing, or the results cannot be written.
    """
    from photomaker.evaluation.plans.speed import plan

    show(plan.run(plan.SpeedSettings(**options(given, words=("ways",)))))

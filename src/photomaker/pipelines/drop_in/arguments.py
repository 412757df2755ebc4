"""The arguments of a stock pipeline's call, by name: nothing that somebody says may be lost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from photomaker.errors import SettingsError

DEPRECATED = ("callback", "callback_steps")
"""What the stock pipelines still take by their `**kwargs`."""


def stock_arguments(
    call: Callable[..., Any],
    own: Iterable[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """All arguments by name.

    Args:
        call: A stock pipeline's call, bound; prompt and prompt_2 are its first arguments.
        own: Names of arguments that are taken besides.
        args: What was given by place behind these two.
        kwargs: What was given by name.

    Raises:
        SettingsError: A name is unknown or given twice, or there are too many arguments.
    """
    parameters = inspect.signature(call).parameters.values()
    by_place = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    known = {*by_place, *(one.name for one in parameters if one.kind is one.KEYWORD_ONLY), *own}
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        known.update(DEPRECATED)
    refuse_unknown("the call", kwargs, known)
    names = by_place[2:]
    if len(args) > len(names):
        raise SettingsError(
            f"the call takes {len(by_place)} positional arguments, but {len(args) + 2} were given; name the others"
        )
    placed = dict(zip(names, args, strict=False))
    twice = sorted(placed.keys() & kwargs.keys())
    if twice:
        raise SettingsError(f"{twice[0]} is given by position and by name; leave one out")
    return placed | dict(kwargs)


def refuse_unknown(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that would be dropped without a word.

    Args:
        what: Takes the arguments, for the message.
        given: Names of the arguments.
        known: Those that there are.

    Raises:
        SettingsError: A name is unknown.
    """
    there = sorted(known)
    for name in given:
        if name not in there:
            near = get_close_matches(name, there, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "leave it out"
            raise SettingsError(f"{what} has no argument {name!r}; {hint}")

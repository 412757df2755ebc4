"""What the form says, and the order that it means."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from photomaker.apps.page.mistakes import Mistake
from photomaker.speeds import EXACT, FAST
from photomaker.studio.plain_orders import PlainOrder
from photomaker.types import MOST_SEED

MIDDLE, FULL = 50.0, 100.0
LATEST = 0.8
"""Share of the steps after which the person joins where the slider is all on the side of the words."""
SEEDS = 1_000_000
"""New seeds are below this, so that people can read them out."""
SIDES = ("left", "right")
"""Where two people are in one picture."""
COMPARED = ("likeness", "style", "steps", "guidance", "scheduler")
"""Settings of which two values can be drawn side by side."""


@dataclass(frozen=True)
class Wish:
    """The form.

    Attributes:
        person: Id of the saved person.
        prompt: What the pictures show.
        style: Name of a style, or `none`.
        size: `square`, `portrait` or `landscape`.
        negative: What they shall not show.
        likeness: 0 follows the words, 50 is the model's own, 100 the person.
        count: Pictures.
        seed: Of the first, as it was typed; empty is a new one.
        scheduler: Name of a scheduler; empty is the model's own.
        steps: Denoising steps.
        fast: Whether less work will do.
        guidance: Guidance scale; empty is the model's own.
        redraw: Whether small faces are drawn again.
        start: Id of the picture to begin with; empty is none.
        strength: How much of it may change, 1 to 100.
        beside: Id of a second person in the same picture; empty is nobody.
    """

    person: str
    prompt: str
    style: str = "none"
    size: str = "square"
    negative: str = ""
    likeness: float = MIDDLE
    count: int = 4
    seed: str = ""
    scheduler: str = ""
    steps: int = 20
    fast: bool = False
    guidance: str = ""
    redraw: bool = False
    start: str = ""
    strength: float = 60
    beside: str = ""


def order_of(wish: Wish, own_merge: float) -> PlainOrder:
    """The order that a form means.

    Args:
        wish: The form.
        own_merge: The model's own merge step.

    Raises:
        Mistake: No person was chosen, or one twice, nothing written, or the seed is no number.
    """
    if not wish.person:
        raise Mistake("no_person")
    if not wish.prompt.strip():
        raise Mistake("no_prompt")
    if wish.beside == wish.person:
        raise Mistake("same_person")
    people = (wish.person, wish.beside) if wish.beside else (wish.person,)
    return PlainOrder(
        people, (wish.prompt.strip(),), n=int(wish.count), seed=_seed(wish.seed),
        negative=wish.negative.strip() or None,
        size=None if wish.size == "square" else wish.size, style=wish.style, scheduler=wish.scheduler or None,
        steps=int(wish.steps), speed=FAST if wish.fast else EXACT,
        guidance=float(wish.guidance) if wish.guidance else None,
        merge=merge_of(wish.likeness, own_merge), redraw="auto" if wish.redraw else "off",
        start=wish.start or None, strength=max(0.01, wish.strength / 100),
        together=bool(wish.beside), layout=SIDES if wish.beside else (),
    )  # fmt: skip


def _seed(given: str) -> int:
    text = given.strip()
    if not text:
        return new_seed()
    if not (text.isascii() and text.isdigit()) or int(text) > MOST_SEED:
        raise Mistake("no_number", given=text[:30])
    return int(text)


def new_seed() -> int:
    """A seed that nobody chose."""
    return secrets.randbelow(SEEDS)


def merge_of(likeness: float, own: float) -> float | None:
    """The merge step of a place of the slider; None, the model's own, in the middle."""
    if likeness == MIDDLE:
        return None
    latest = max(own, LATEST)
    if likeness > MIDDLE:
        return round(own * (FULL - likeness) / MIDDLE, 3)
    return round(latest + (own - latest) * likeness / MIDDLE, 3)


def with_setting(order: PlainOrder, what: str, value: str, own_merge: float) -> PlainOrder:
    """An order with another value of a setting.

    Args:
        order: The order.
        what: One of `COMPARED`.
        value: As the page offers it.
        own_merge: The model's own merge step.
    """
    if what == "likeness":
        return replace(order, merge=merge_of(float(value), own_merge))
    if what == "steps":
        return replace(order, steps=int(value))
    if what == "guidance":
        return replace(order, guidance=float(value) if value else None)
    if what == "scheduler":
        return replace(order, scheduler=value or None)
    return replace(order, style=value)

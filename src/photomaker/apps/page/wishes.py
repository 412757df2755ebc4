"""The form of the page, and the order for it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from photomaker.apps.page.mistakes import Mistake
from photomaker.speeds import EXACT, FAST
from photomaker.studio.orders.plain import PlainOrder
from photomaker.types import MOST_SEED

MIDDLE, FULL = 50.0, 100.0
LATEST = 0.8
"""Merge step when the slider is fully on the side of the prompt."""
SEEDS = 1_000_000
"""Upper limit of random seeds, so that they are short enough to read out."""
SIDES = ("left", "right")
"""Regions of two people in one picture."""
USUAL_STEPS = 20
"""Denoising steps where nobody moves the slider."""

COMPARED = ("likeness", "style", "steps", "guidance", "scheduler")
"""Settings whose values can be compared side by side."""


@dataclass(frozen=True)
class Wish:
    """The form.

    Attributes:
        person: Id of the saved person.
        prompt: What the pictures show.
        style: Name of a style, or `none`.
        size: `square`, `portrait` or `landscape`.
        negative: What they should not show.
        likeness: 0 is the prompt only, 50 the model's default, 100 the person.
        count: Number of pictures.
        seed: Seed of the first, as typed; empty is random.
        scheduler: Name of a scheduler; empty is the model's own.
        steps: Denoising steps.
        fast: Whether to use `fast` speed.
        guidance: Guidance scale; empty is the model's own.
        redraw: Whether to redraw small faces.
        start: Id of the start picture; empty is none.
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
    steps: int = USUAL_STEPS
    fast: bool = False
    guidance: str = ""
    redraw: bool = False
    start: str = ""
    strength: float = 60
    beside: str = ""


def order_of(wish: Wish, own_merge: float) -> PlainOrder:
    """The order for a form.

    Args:
        wish: The form.
        own_merge: The model's own merge step.

    Raises:
        Mistake: No person was chosen, or one twice, the prompt is empty, or the seed is not a number.
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
    """A random seed."""
    return secrets.randbelow(SEEDS)


def merge_of(likeness: float, own: float) -> float | None:
    """The merge step for a slider position; None, the model's own, in the middle."""
    if likeness == MIDDLE:
        return None
    latest = max(own, LATEST)
    if likeness > MIDDLE:
        return round(own * (FULL - likeness) / MIDDLE, 3)
    return round(latest + (own - latest) * likeness / MIDDLE, 3)


def with_setting(order: PlainOrder, what: str, value: str, own_merge: float) -> PlainOrder:
    """An order with a different value of a setting.

    Args:
        order: The order.
        what: One of `COMPARED`.
        value: One of the page's choices.
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

"""`--speed`: applies a preset to an order before any model is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from photomaker.errors import SettingsError
from photomaker.speeds import AUTO, EXACT, FAST, PRESETS, STUDENT, STUDENTS, TURBO, Speed
from photomaker.types import Lora

if TYPE_CHECKING:
    from photomaker.studio.opening import Profile
    from photomaker.studio.orders.order import Order

DEFAULT = Speed()
"""No work is skipped."""


def sped(order: Order, profile: Profile) -> tuple[Speed, Order, list[str]]:
    """An order whose speed preset is written into its sampling settings.

    Args:
        order: The order.
        profile: The model.

    Returns:
        The resolved speed, the order, and notes for the user.

    Raises:
        SettingsError: There are no few-step weights for the model.
    """
    asked = Speed.of(order.speed)
    speed = _settled(asked, profile)
    if speed.preset == EXACT:
        notes = [_UNMEASURED] if asked.preset == AUTO else []
        return speed, replace(order, speed=speed), notes
    if speed.student is not None:
        return speed, _by_student(order, speed), _student_notes(order, speed)
    way = PRESETS[speed.preset]
    return speed, replace(order, speed=DEFAULT, sampling=way.applied(order.sampling)), []


_UNMEASURED = (
    "speed is auto, but nothing is measured for this base, so no work is skipped; fast takes less time"
)


def _settled(speed: Speed, profile: Profile) -> Speed:
    """The speed with `auto` resolved, and with the few-step weights if it uses any."""
    if speed.preset == AUTO:
        return Speed(FAST if profile.bundled else EXACT)
    if speed.preset != TURBO:
        return speed
    if profile.bundled:
        return _turbo_of_bundled(speed)
    _check_lora(profile)
    return replace(speed, student=speed.student or STUDENT)


def _turbo_of_bundled(speed: Speed) -> Speed:
    if speed.student is not None:
        raise SettingsError(
            f"speed is {speed}, but few-step weights are for SDXL, not for the bundled model; use turbo alone"
        )
    return speed


def _check_lora(profile: Profile) -> None:
    if profile.kind is not None and "LoRA" not in profile.kind.takes:
        raise SettingsError(
            f"speed is turbo, which needs a LoRA, but the method {profile.kind.name} takes none; use fast"
        )


def _by_student(order: Order, speed: Speed) -> Order:
    student = STUDENTS[str(speed.student)]
    lora = Lora(speed.weights or student.file)
    extras = replace(order.extras, loras=(*order.extras.loras, lora))
    return replace(order, speed=DEFAULT, sampling=student.applied(order.sampling), extras=extras)


def _student_notes(order: Order, speed: Speed) -> list[str]:
    student = STUDENTS[str(speed.student)]
    if order.negative and student.guidance <= 1:
        return [f"turbo with {speed.student} uses no guidance, so the negative prompt has no effect"]
    return []

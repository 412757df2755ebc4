"""Checks an order before any diffusion model is loaded: prompts, style, size, extras, photos, with notes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from photomaker.errors import PhotoError, SettingsError, WeightsError
from photomaker.outside import read_file
from photomaker.speeds import Speed
from photomaker.studio.opening import Profile
from photomaker.studio.orders.order import IDENTITY_FILE, Order, Someone, Who
from photomaker.studio.orders.prompts import check_prompt
from photomaker.studio.orders.sizes import resolve, size_note
from photomaker.studio.orders.speed import DEFAULT, sped
from photomaker.studio.orders.styles import Style, find_style, styles
from photomaker.studio.photos.reality import reality_notes
from photomaker.studio.photos.sitting import Sitting
from photomaker.types import Face, Identity, Request

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from photomaker.types import Structure


@dataclass(frozen=True)
class Group:
    """The pictures of one person and one prompt.

    Attributes:
        person: Number of the person, from 0.
        prompt: Number of the prompt, from 0.
        requests: One for each picture that is drawn.
    """

    person: int
    prompt: int
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Plan:
    """An order that can be drawn.

    Attributes:
        order: What was asked for, its photos read and its identities loaded.
        prompts: The prompts as they are drawn, with trigger and style.
        groups: The pictures, by person and prompt.
        notes: Notes for the user, one sentence each.
        speed: How fast it is drawn, as it stands in the order's sampling; `auto` is settled.
    """

    order: Order
    prompts: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    speed: Speed = DEFAULT


def planned(
    order: Order,
    profile: Profile,
    look: Callable[[Who], Sitting],
    measures: bool,
    more_styles: Path | None = None,
    finds: bool = True,
    detect: Callable[[Image], list[Face]] | None = None,
    cut: Callable[[Image, Face], np.ndarray] | None = None,
) -> Plan:
    """Check an order.

    Args:
        order: The order.
        profile: The model.
        look: Reads photos and finds the person in them.
        measures: Whether likeness can be measured.
        more_styles: A file with styles of the user's.
        finds: Whether faces can be found in pictures.
        detect: Finds the faces in a pose or a structure picture; None leaves a pose to the method.
        cut: Finds the mask of the person with a face; None if nothing here does.

    Raises:
        PhotoMakerError: Something in the order cannot be done; before photos are read where the order alone tells.
    """
    count = len(order.people) if order.together else 1
    complete = [check_prompt(prompt, order.negative, count) for prompt in order.prompts]
    if order.together and profile.kind is not None and not hasattr(profile.kind, "together"):
        raise SettingsError(
            f"the method {profile.kind.name} cannot draw several people in one picture; use photomaker or fastcomposer"
        )
    style = find_style(order.style, styles(more_styles))
    drawn = [_styled(prompt, order.negative, style, profile.bundled) for prompt in complete]
    if order.best_of > 1 and not measures:
        raise SettingsError(f"best_of is {order.best_of}, but no recogniser measures likeness; leave it at 1")
    order, notes = _sized(order, profile)
    if order.sampling.scheduler is not None:
        name = _checked_scheduler(order.sampling.scheduler, profile)
        order = replace(order, sampling=replace(order.sampling, scheduler=name))
    speed, order, told = sped(order, profile)
    order = _posed(order, profile, detect)
    order = _structured(order, profile, detect, cut)
    groups = tuple(
        Group(person, prompt, order.requests(*drawn[prompt])) for person, prompt in order.couples()
    )
    _check_extras(order, profile, groups[0].requests)
    order = _redrawn(order, profile, finds)
    order = replace(order, people=tuple(_read(person, look) for person in order.people))
    notes += told + _prompt_notes(complete, profile) + _people_notes(order, profile, measures)
    return Plan(order, tuple(prompt for prompt, _ in drawn), groups, tuple(dict.fromkeys(notes)), speed)


def _styled(prompt: str, negative: str | None, style: Style | None, bundled: bool) -> tuple[str, str | None]:
    return (prompt, negative) if style is None else style.applied(prompt, negative, bundled)


def _sized(order: Order, profile: Profile) -> tuple[Order, list[str]]:
    """The order with its size in pixels, and a note where the base does not know it."""
    sampling = order.sampling
    if order.size is None and sampling.width is None and sampling.height is None:
        return order, []
    size = profile.size
    if size is None:
        if order.size is not None:
            raise SettingsError(f"size is {order.size!r}, but the base is unknown; give width and height")
        return order, []
    if order.size is not None:
        width, height = resolve(order.size, size)
        sampling = replace(sampling, width=width, height=height)
    note = size_note(sampling.width or size.side, sampling.height or size.side, size)
    return replace(order, sampling=sampling, size=None), [note] if note else []


def _checked_scheduler(name: str, profile: Profile) -> str:
    """The scheduler's name, if the base can draw with it."""
    from photomaker.pipelines.steps.schedulers import check_noise, check_scheduler

    name = check_scheduler(name)
    told = None if profile.base is None else profile.base / "scheduler" / "scheduler_config.json"
    if told is not None and told.is_file():
        config = read_file(told, "download the base again", WeightsError)
        check_noise(str(config.get("_class_name")), config, name)
    return name


def _check_extras(order: Order, profile: Profile, requests: tuple[Request, ...]) -> None:
    if profile.kind is not None:
        profile.kind.check_requests(requests)
    if order.extras.asked and profile.base is not None:
        from photomaker.pipelines.drawing.extra_checks import check_extras

        check_extras(profile.base, order.extras, order.sampling)


def _posed(order: Order, profile: Profile, detect: Callable[[Image], list[Face]] | None) -> Order:
    """The order with the landmarks of its pose, where that is a picture and something here finds faces."""
    pose, kind = order.extras.pose, profile.kind
    if pose is None or isinstance(pose.source, str) or kind is None or "pose" not in kind.takes:
        return order
    if profile.size is not None:
        from photomaker.pipelines.structures.landmarks import check_pose

        side = profile.size.side
        check_pose(pose, (order.sampling.width or side, order.sampling.height or side))
    if detect is None or pose.landmarks is not None:
        return order
    face = max(detect(pose.source), key=lambda one: one.area, default=None)
    if face is None:
        raise PhotoError("no face was found in the pose picture; give a picture with a face")
    return replace(order, extras=replace(order.extras, pose=replace(pose, landmarks=face.landmarks)))


def _structured(
    order: Order,
    profile: Profile,
    detect: Callable[[Image], list[Face]] | None,
    cut: Callable[[Image, Face], np.ndarray] | None,
) -> Order:
    """The order with its structures as its ControlNets see them: landmarks, edges or masks are read off pictures."""
    controls, kind = order.extras.controls, profile.kind
    if not controls or (kind is not None and "ControlNet" not in kind.takes):
        return order
    side = None if profile.size is None else profile.size.side
    size = (order.sampling.width or side, order.sampling.height or side)
    made = tuple(_followed(one, size, detect, cut) for one in controls)
    return replace(order, extras=replace(order.extras, controls=made))


def _followed(
    one: Structure,
    size: tuple[int | None, int | None],
    detect: Callable[[Image], list[Face]] | None,
    cut: Callable[[Image, Face], np.ndarray] | None,
) -> Structure:
    """A structure that is followed as it is, at the size of the pictures where that is known."""
    from photomaker.pipelines.structures import structures

    picture = one.image
    if size[0] is not None and size[1] is not None:
        structures.check_shape(picture, (size[0], size[1]))
        picture = structures.fitted(picture, (size[0], size[1]))
    if one.kind is None:
        return one
    drawing = structures.drawing_of(structures.control_folder(one.model), one.kind)
    if one.kind == "edges":
        return replace(one, image=structures.drawn(drawing, structures.Content(picture)), kind=None)
    face = max(detect(picture), key=lambda found: found.area, default=None) if detect else None
    if face is None:
        lacking = "shows no face" if detect else "cannot be read without a face backend"
        raise PhotoError(f"the structure picture {lacking}; give one that is used as it is, or with a face")
    if one.kind == "mask" and cut is None:
        raise PhotoError("no segmenter is available; give a mask as the structure picture, without mask@")
    mask = cut(picture, face) if one.kind == "mask" and cut else None
    content = structures.Content(picture, face.landmarks, mask)
    return replace(one, image=structures.drawn(drawing, content), kind=None)


def _redrawn(order: Order, profile: Profile, finds: bool) -> Order:
    """The order, with small faces left alone where nothing can draw them again and nobody insists."""
    if order.redraw == "off":
        return order
    lacking = ""
    if not finds:
        lacking = "there is no face backend; install photomaker[faces], or leave it off"
    elif profile.size is None:
        lacking = "the base is unknown; leave it off"
    elif profile.kind is not None and "start picture" not in profile.kind.takes:
        lacking = f"{profile.kind.name} takes no start picture; leave it off"
    if not lacking:
        return order
    if order.redraw != "auto":
        raise SettingsError(f"redraw is {order.redraw}, but {lacking}")
    return replace(order, redraw="off")


def _read(person: Someone, look: Callable[[Who], Sitting]) -> Someone:
    """The person as a loaded identity, or as photos in which the face was found."""
    who = person.who
    if isinstance(who, Identity | Sitting):
        return person
    if isinstance(who, str | os.PathLike) and Path(who).suffix == IDENTITY_FILE:
        return replace(person, who=Identity.load(who))
    return replace(person, who=look(who))


def _prompt_notes(prompts: list[str], profile: Profile) -> list[str]:
    """The words that the bundled model does not know; the words of its styles count as known."""
    if not profile.bundled:
        return []
    from photomaker.studio.orders.vocabulary import unknown_note

    note = unknown_note(prompts)
    return [note] if note else []


def _people_notes(order: Order, profile: Profile, measures: bool) -> list[str]:
    sittings = [person.who for person in order.people if isinstance(person.who, Sitting)]
    notes = [note for sitting in sittings for note in sitting.notes]
    if profile.base is None:
        return notes
    references = [reference for sitting in sittings for reference in sitting.references]
    finds = profile.finds if measures else None
    return notes + reality_notes(references, profile.bundled, profile.faces, finds)

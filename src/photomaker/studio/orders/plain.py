"""An order as plain values, from a program or a page: people, pictures and models by name, never by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from photomaker import config
from photomaker.checks import shown
from photomaker.errors import SettingsError
from photomaker.prompts.places import PLACES
from photomaker.speeds import EXACT, Speed
from photomaker.studio.orders.order import Order, Someone
from photomaker.types import POSES, Extras, Lora, Pose, Sampling, Start, Structure, StylePicture

if TYPE_CHECKING:
    from PIL.Image import Image

    from photomaker.types import Identity

_CORNERS = 4


@dataclass(frozen=True)
class PlainLora:
    """A LoRA of the server's list.

    Attributes:
        name: Its name on the list.
        weight: Its weight.
    """

    name: str
    weight: float = 1.0


@dataclass(frozen=True)
class PlainStructure:
    """A ControlNet or T2I-Adapter of the server's list, with the picture that it follows.

    Attributes:
        model: Its name on the list.
        picture: Id of the picture.
        scale: Strength.
        start: Share of the steps after which it begins.
        stop: Share of the steps after which it ends.
        kind: Structure to extract from the picture: `landmarks`, `edges` or `mask`; None uses it as it is.
    """

    model: str
    picture: str
    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0
    kind: str | None = None


@dataclass(frozen=True)
class PlainStyle:
    """A picture whose style is copied.

    Attributes:
        picture: Its id.
        adapter: Name of the IP-Adapter on the server's list; None is the bundled one.
        scale: Strength.
    """

    picture: str
    adapter: str | None = None
    scale: float = 0.6


@dataclass(frozen=True)
class PlainPose:
    """The pose of the face, for methods that follow landmarks.

    Attributes:
        source: Id of a picture with a face; or `photo`, `draft`, `none`, see `Pose`.
        scale: Strength, 0 to 2; None is the method's default.
    """

    source: str
    scale: float | None = None


@dataclass(frozen=True)
class PlainOrder:
    """An order that can be written as JSON; see `Order`, `Sampling` and `Extras` for the fields.

    Attributes:
        people: Ids or names of saved people.
        prompts: The prompts.
        pairs: Whether to pair the first person with the first prompt only, and so on.
        n: Pictures of each person and prompt.
        seed: Seed of the first picture; each next one adds 1.
        seeds: One seed for each picture, instead of `seed`.
        best_of: Draw this many times `n`, and keep those with the highest likeness.
        negative: What the pictures should not show.
        size: `portrait`, `landscape`, `square` or `640x480`.
        style: Name of a style preset.
        scheduler: Name of a scheduler.
        steps: Denoising steps.
        guidance: Guidance scale.
        merge: Share of the steps before the person joins.
        guidance_start: Share of the steps before guidance begins.
        guidance_stop: Share of the steps after which guidance ends.
        speed: `exact`, `fast`, `turbo` or `auto`; `turbo:NAME` names few-step weights.
        redraw: Whether to redraw small faces: `off`, `auto`, or a limit in pixels.
        together: Whether all people are in each picture.
        layout: Region of each of them: `left`, `middle`, `right`, a box of four shares, or the id of a mask.
        start: Id of a start picture.
        strength: How much of it to redraw.
        mask: Id of a mask of that picture.
        loras: Additional LoRA.
        controls: ControlNets with their pictures.
        t2i: A T2I-Adapter with its picture.
        style_picture: A picture whose style is copied.
        pose: Pose of the face.
    """

    people: tuple[str, ...]
    prompts: tuple[str, ...]
    pairs: bool = False
    n: int = 1
    seed: int = 0
    seeds: tuple[int, ...] = ()
    best_of: int = 1
    negative: str | None = None
    size: str | None = None
    style: str = "none"
    scheduler: str | None = None
    steps: int = 20
    guidance: float | None = None
    merge: float | None = None
    guidance_start: float = 0.0
    guidance_stop: float = 1.0
    speed: str = EXACT
    redraw: str | int = "off"
    together: bool = False
    layout: tuple[str | tuple[float, ...], ...] = ()
    start: str | None = None
    strength: float = 0.6
    mask: str | None = None
    loras: tuple[PlainLora, ...] = ()
    controls: tuple[PlainStructure, ...] = ()
    t2i: PlainStructure | None = None
    style_picture: PlainStyle | None = None
    pose: PlainPose | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> PlainOrder:
        """An order from the names and values of a JSON object.

        Raises:
            SettingsError: A name is unknown or missing, or a value is of another type.
        """
        return config.make(values, cls, "the order")

    def as_json(self) -> dict[str, Any]:
        """Plain data from which `of` makes the same order."""
        made = config.plain(self)
        assert isinstance(made, dict)
        return made


class Shelf(Protocol):
    """Finds an order's people, pictures and models by name."""

    def someone(self, name: str) -> tuple[Identity, str]:
        """A saved person and their name.

        Raises:
            NotThere: There is none with this id or name.
        """

    def image(self, name: str) -> Image:
        """A picture.

        Raises:
            NotThere: There is none with this id.
        """

    def model(self, name: str) -> str:
        """The path of a model that may be opened.

        Raises:
            SettingsError: It is not on the list.
        """


def full_order(plain: PlainOrder, shelf: Shelf) -> Order:
    """The order as an engine takes it.

    Args:
        plain: The plain order.
        shelf: Finds people, pictures and models.

    Raises:
        PhotoMakerError: Something does not exist, is out of range, or contradicts something else.
    """
    sampling = Sampling(
        steps=plain.steps, guidance=plain.guidance, merge=plain.merge, seed=plain.seed, scheduler=plain.scheduler,
        guidance_start=plain.guidance_start, guidance_stop=plain.guidance_stop,
    )  # fmt: skip
    return Order(
        tuple(Someone(*shelf.someone(name)) for name in plain.people),
        plain.prompts,
        plain.pairs,
        plain.n,
        plain.seeds,
        plain.best_of,
        sampling,
        plain.size,
        plain.style,
        plain.negative,
        _extras(plain, shelf),
        plain.redraw,
        plain.together,
        _speed(plain, shelf),
    )


def _speed(plain: PlainOrder, shelf: Shelf) -> Speed:
    """The speed; custom weights are named from the list, never by path."""
    speed = Speed.of(plain.speed)
    return speed if speed.weights is None else replace(speed, weights=shelf.model(speed.weights))


def _extras(plain: PlainOrder, shelf: Shelf) -> Extras:
    if plain.mask is not None and plain.start is None:
        raise SettingsError(
            f"there is a mask ({shown(plain.mask)}) but no start picture; give the picture that the mask belongs to"
        )
    return Extras(
        None if plain.start is None else _start(plain.start, plain, shelf),
        tuple(Lora(shelf.model(one.name), one.weight) for one in plain.loras),
        tuple(_structure(one, shelf) for one in plain.controls),
        None if plain.t2i is None else _structure(plain.t2i, shelf),
        None if plain.style_picture is None else _style(plain.style_picture, shelf),
        tuple(_place(one, shelf) for one in plain.layout),
        None if plain.pose is None else _pose(plain.pose, shelf),
    )


def _start(name: str, plain: PlainOrder, shelf: Shelf) -> Start:
    return Start(shelf.image(name), plain.strength, None if plain.mask is None else shelf.image(plain.mask))


def _structure(one: PlainStructure, shelf: Shelf) -> Structure:
    return Structure(
        shelf.model(one.model), shelf.image(one.picture), one.scale, one.start, one.stop, one.kind
    )


def _style(one: PlainStyle, shelf: Shelf) -> StylePicture:
    adapter = None if one.adapter is None else shelf.model(one.adapter)
    return StylePicture(shelf.image(one.picture), adapter, one.scale)


def _pose(one: PlainPose, shelf: Shelf) -> Pose:
    return Pose(one.source if one.source in POSES else shelf.image(one.source), one.scale)


def _place(one: str | tuple[float, ...], shelf: Shelf) -> str | tuple[float, ...] | Image:
    if isinstance(one, tuple):
        if len(one) != _CORNERS:
            raise SettingsError(f"the box {shown(one)} has {len(one)} numbers; give left, top, right, bottom")
        return one
    word = one.strip().lower()
    return word if word in PLACES else shelf.image(one)

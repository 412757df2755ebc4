"""Many orders from one file: prompts x people x settings, drawn into a folder, resumable after a kill.

A picture's file name holds a hash of all its settings, so an existing file is a finished picture, and no other state
is needed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomaker import config
from photomaker.checks import shown
from photomaker.errors import OutputError, PhotoError, PromptError, SettingsError
from photomaker.metadata import KINDS
from photomaker.speeds import EXACT
from photomaker.studio.desk.workers import TRIES, DrawerLost
from photomaker.studio.engine import BATCH, Engine, Progress, rank
from photomaker.studio.events import Cancel, Listener
from photomaker.studio.orders.extras import extras_of
from photomaker.studio.orders.order import Order, Someone
from photomaker.studio.orders.planning import Plan
from photomaker.studio.photos.sitting import Sitting
from photomaker.studio.pictures.saving import describe, save_named
from photomaker.studio.provenance.manifest import Sealing
from photomaker.types import Identity, Request, Sample, Sampling

if TYPE_CHECKING:
    from photomaker.studio.desk.workers import Drawer

Names = str | tuple[str, ...]
_SLUG = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Block:
    """One entry of the file: prompts for people, with settings; a list of values means each value in turn.

    Attributes:
        prompts: The prompts; `{word}` is the person's own class word.
        people: Names of people of the file; empty is all of them.
        pairs: Whether to pair the first person with the first prompt only, and so on.
        n: Pictures of each person, prompt and setting.
        seed: Seed of the first picture; each next one adds 1.
        seeds: One seed for each picture, instead of `seed`.
        best_of: Draw this many times `n`, and keep those with the highest likeness.
        negative: What the pictures should not show.
        style: One style or several.
        size: One size or several.
        scheduler: One scheduler or several.
        steps: One number of steps or several.
        guidance: One guidance scale or several.
        merge: One merge share or several.
        guidance_start: Share of the steps after which guidance begins.
        guidance_stop: Share of the steps after which guidance ends.
        speed: One speed or several: `exact`, `fast`, `turbo`, `auto`.
        loras: As on the command line, `FILE` or `FILE:WEIGHT`.
        start: A start picture.
        strength: How much of it to redraw.
        mask: Where to redraw it.
        controls: As on the command line, `MODEL=PICTURE` or `MODEL=PICTURE:SCALE`.
        t2i: The same for a T2I-Adapter.
        style_picture: `PICTURE` or `PICTURE:SCALE`.
        style_adapter: The IP-Adapter that reads it.
        redraw: Whether to redraw small faces: `off`, `auto`, or a limit in pixels.
        together: Whether all people, 2 to 4, are in each picture.
        layout: Region of each of them: `left`, `middle`, `right`, a box "0,0,0.5,1" or a mask file.
        pose: `PICTURE` or `PICTURE:SCALE` whose face sets the pose, or `photo`, `draft`, `none`.
    """

    prompts: Names
    people: Names = ()
    pairs: bool = False
    n: int = 1
    seed: int = 0
    seeds: tuple[int, ...] = ()
    best_of: int = 1
    negative: str | None = None
    style: Names = "none"
    size: Names | None = None
    scheduler: Names | None = None
    steps: int | tuple[int, ...] = 20
    guidance: float | tuple[float, ...] | None = None
    merge: float | tuple[float, ...] | None = None
    guidance_start: float = 0.0
    guidance_stop: float = 1.0
    speed: Names = EXACT
    loras: Names = ()
    start: str | None = None
    strength: float = 0.6
    mask: str | None = None
    controls: Names = ()
    t2i: str | None = None
    style_picture: str | None = None
    style_adapter: str | None = None
    redraw: str | int = "off"
    together: bool = False
    layout: Names = ()
    pose: str | None = None


VARIED = ("style", "size", "scheduler", "steps", "guidance", "merge", "speed")
"""Settings that may have several values."""


@dataclass(frozen=True)
class OrdersFile:
    """A file of orders.

    Attributes:
        people: Name to photos (a folder, a file, or a list) or to a saved identity.
        orders: What to draw.
        words: Name to class word, for `{word}` in prompts.
    """

    people: Mapping[str, Names]
    orders: tuple[Block, ...]
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Pictures of one person (or several together), prompt and setting: a row of the sheet.

    Attributes:
        label: Label of the row.
        person: The person's name, or the names of all.
        order: The order for these people and this prompt.
        stem: Beginning of its file names.
    """

    label: str
    person: str
    order: Order
    stem: str


def read_orders(path: str | os.PathLike[str], changes: Sequence[str] = ()) -> tuple[Row, ...]:
    """Read a file of orders; no photo is opened.

    Args:
        path: YAML, see `OrdersFile`.
        changes: "a.b=value" each, which override the file's.

    Raises:
        PhotoMakerError: It cannot be read, or something in it is unknown or out of range.
    """
    told = config.read(path, OrdersFile, changes)
    if not told.orders:
        raise SettingsError(f"{path} has no orders; write at least one with prompts")
    if not told.people:
        raise PhotoError(f"{path} has no people; write name: folder of photos, or name: identity file")
    for name in told.words:
        _known(name, told, str(path))
    return tuple(
        row for number, block in enumerate(told.orders, 1) for row in _rows(block, number, told, str(path))
    )


def _known(name: str, told: OrdersFile, where: str) -> str:
    if name not in told.people:
        raise SettingsError(f"there is no person {name!r} in {where}; known are {', '.join(told.people)}")
    return name


def _rows(block: Block, number: int, told: OrdersFile, where: str) -> Iterator[Row]:
    people = [_known(name, told, where) for name in _tuple(block.people) or tuple(told.people)]
    prompts = _tuple(block.prompts)
    if block.pairs and len(people) != len(prompts):
        raise SettingsError(
            f"order {number} of {where} has {len(people)} people and {len(prompts)} prompts, which make "
            "no pairs; give as many prompts as people"
        )
    extras = extras_of(
        block.loras, block.start, block.strength, block.mask, block.controls, block.t2i, block.style_picture,
        block.style_adapter, layout=block.layout, pose=block.pose,
    )  # fmt: skip
    groups = [people] if block.together else [[name] for name in people]
    for place, setting in enumerate(_settings(block), 1):
        for (who, names), (what, prompt) in itertools.product(enumerate(groups), enumerate(prompts)):
            if block.pairs and who != what:
                continue
            name = ", ".join(names)
            order = Order(
                tuple(_someone(one, told) for one in names),
                (prompt if block.together else _filled(prompt, name, told, where),),
                n=block.n,
                seeds=block.seeds,
                best_of=block.best_of,
                sampling=setting.sampling,
                size=setting.size,
                style=setting.style,
                negative=block.negative,
                extras=extras,
                redraw=block.redraw,
                together=block.together,
                speed=setting.speed,
            )
            label = ", ".join([f"{name}: {order.prompts[0]}", *setting.told])
            yield Row(label, name, order, f"{number:02d}-{_slug(name)}-{what + 1:02d}-{place:02d}")


@dataclass(frozen=True)
class _Setting:
    sampling: Sampling
    size: str | None
    style: str
    speed: str
    told: tuple[str, ...]


def _settings(block: Block) -> Iterator[_Setting]:
    """One for each combination of a block's settings with several values."""
    several = {name: _tuple(getattr(block, name)) or (None,) for name in VARIED}
    for values in itertools.product(*several.values()):
        one = dict(zip(several, values, strict=True))
        told = tuple(f"{name} {one[name]}" for name in VARIED if len(several[name]) > 1)
        sampling = Sampling(
            steps=one["steps"], guidance=one["guidance"], merge=one["merge"], seed=block.seed,
            scheduler=one["scheduler"], guidance_start=block.guidance_start, guidance_stop=block.guidance_stop,
        )  # fmt: skip
        yield _Setting(sampling, one["size"], one["style"] or "none", one["speed"] or EXACT, told)


def _tuple(value: object) -> tuple[Any, ...]:
    return () if value is None else tuple(value) if isinstance(value, tuple | list) else (value,)


def _filled(prompt: str, name: str, told: OrdersFile, where: str) -> str:
    if "{word}" not in prompt:
        return prompt
    if name not in told.words:
        raise PromptError(
            f"the prompt {shown(prompt)} of {where} needs {name}'s class word, which is missing; write under "
            f"words: {name}: woman"
        )
    return prompt.replace("{word}", told.words[name])


def _someone(name: str, told: OrdersFile) -> Someone:
    places = told.people[name]
    return Someone(places if isinstance(places, str) else list(places), name)


def _slug(name: str) -> str:
    return _SLUG.sub("-", name).strip("-").lower()[:40] or "person"


# ---- drawing


@dataclass(frozen=True)
class Finished:
    """A row with the files of its pictures."""

    row: Row
    paths: tuple[Path, ...]


def planned_rows(engine: Engine, rows: Sequence[Row]) -> list[Plan]:
    """Check every row before anything is drawn; photos of a person are read once.

    Raises:
        PhotoMakerError: A row cannot be drawn.
    """
    people: dict[str, Someone] = {}
    plans = []
    for row in rows:
        order = replace(row.order, people=tuple(people.get(one.name, one) for one in row.order.people))
        plan = engine.plan(order)
        people |= {one.name: one for one in plan.order.people}
        plans.append(plan)
    return plans


def draw_rows(
    engine: Engine,
    rows: Sequence[Row],
    plans: Sequence[Plan],
    folder: Path,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    on_event: Listener | None = None,
    *,
    drawers: Sequence[Drawer] = (),
    kind: str = "png",
    seal: Sealing = True,
) -> list[Finished]:
    """Draw the missing pictures.

    Args:
        engine: Draws.
        rows: From `read_orders`.
        plans: Their plans, from `planned_rows`.
        folder: Output folder, created if missing.
        progress: Called with the number of finished pictures and the total.
        cancel: Stops it within one denoising step.
        on_event: Called with events.
        drawers: Draw instead of the engine, in parallel, such as those of `photomaker.studio.desk.replicas`.
        kind: File format: `png`, `jpeg` or `webp`.
        seal: How files are signed; see `photomaker.studio.pictures.saving.save_samples`.

    Returns:
        Every row with its files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_paths(engine, row, plan, folder, kind) for row, plan in zip(rows, plans, strict=True)]
    everything = [_Left(*one) for one in zip(rows, plans, paths, strict=True)]
    left = [one for one in everything if one.missing]
    identities: dict[str, Identity] = {}
    tell = _teller(paths, progress)

    def drawn(one: _Left, drawer: Drawer) -> None:
        who = identities[one.row.person]
        for place, sample in _samples(drawer, who, one.plan, one.missing, cancel, on_event):
            notes = {**sample.notes, **one.notes}
            save_named(replace(sample, notes=notes), one.paths[place], engine.about, seal=seal)
        tell()

    tell()
    for one in left:
        if one.row.person not in identities:
            identities[one.row.person] = engine.who(one.plan, 0, cancel, on_event)
        if not drawers:
            drawn(one, engine)
    if drawers:
        _by_several(left, drawers, drawn)
    return [Finished(row, tuple(own)) for row, own in zip(rows, paths, strict=True)]


@dataclass(frozen=True)
class _Left:
    """A row with missing pictures."""

    row: Row
    plan: Plan
    paths: list[Path]

    @property
    def missing(self) -> list[int]:
        """Indices of the missing pictures."""
        return [place for place, path in enumerate(self.paths) if not path.exists()]

    @property
    def steps(self) -> int:
        """Remaining denoising steps, assuming pictures of equal size."""
        return len(self.missing) * self.plan.order.best_of * self.plan.order.sampling.steps

    @property
    def notes(self) -> dict[str, str]:
        """The row's metadata for the pictures' files."""
        style = self.plan.order.style
        return {"person": self.row.person, **({} if style == "none" else {"style": style})}


def _teller(paths: Sequence[Sequence[Path]], progress: Progress | None) -> Callable[[], None]:
    everything, lock = [path for several in paths for path in several], threading.Lock()

    def tell() -> None:
        if progress is not None:
            with lock:
                progress(sum(path.exists() for path in everything), len(everything))

    return tell


def _by_several(
    left: Sequence[_Left], drawers: Sequence[Drawer], drawn: Callable[[_Left, Drawer], None]
) -> None:
    """Let each drawer take a row as soon as it is free; the first error ends it after the current rows.

    If a drawer is lost, the next free one draws its remaining pictures.
    """
    free: queue.SimpleQueue[Drawer] = queue.SimpleQueue()
    for drawer in drawers:
        free.put(drawer)

    def work(one: _Left) -> None:
        for left_over in reversed(range(TRIES)):
            drawer = free.get()
            try:
                return drawn(one, drawer)
            except DrawerLost as error:
                if not left_over:
                    raise OutputError(
                        f"the process drawing '{one.row.label}' died {TRIES} times, probably because memory ran "
                        "out; ask for fewer or smaller pictures, and give the same command again to "
                        "continue"
                    ) from error
            finally:
                free.put(drawer)
        return None

    with ThreadPoolExecutor(len(drawers)) as pool:
        # longest first, so that it does not run alone at the end
        futures = [pool.submit(work, one) for one in sorted(left, key=lambda one: one.steps, reverse=True)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _samples(
    drawer: Drawer,
    identity: Identity,
    plan: Plan,
    missing: Sequence[int],
    cancel: Cancel | None,
    on_event: Listener | None,
) -> Iterator[tuple[int, Sample]]:
    """Positions in the row and their contents."""
    requests = plan.groups[0].requests
    if plan.order.best_of > 1:
        # the ranking is known only after all are drawn
        best = rank(
            drawer.draw(identity, requests, cancel=cancel, on_event=on_event, redraw=plan.order.redraw)
        )
        yield from ((place, best[place]) for place in missing)
        return
    for start in range(0, len(missing), BATCH):
        places = missing[start : start + BATCH]
        wanted = [requests[place] for place in places]
        drawn = drawer.draw(identity, wanted, cancel=cancel, on_event=on_event, redraw=plan.order.redraw)
        yield from zip(places, drawn, strict=True)


def _paths(engine: Engine, row: Row, plan: Plan, folder: Path, kind: str) -> list[Path]:
    """The files of a row: names with a hash of all settings of the picture."""
    requests = plan.groups[0].requests
    places = range(plan.order.n)
    people = [_fingerprint(one.who) for one in plan.order.people]
    made_of = {
        "model": engine.about,
        "person": people if plan.order.together else people[0],
        "best_of": plan.order.best_of,
        **({} if plan.order.redraw == "off" else {"redraw": plan.order.redraw}),
    }
    hashes = [_hash(made_of | {"place": place, "request": _request(requests, place)}) for place in places]
    return [
        folder / f"{row.stem}-{place + 1}-{made}{KINDS[kind]}"
        for place, made in zip(places, hashes, strict=True)
    ]


def _request(requests: Sequence[Request], place: int) -> dict[str, str]:
    from PIL import Image

    return describe(Sample(Image.new("RGB", (1, 1)), requests[place]))


def _fingerprint(who: object) -> list[str]:
    if isinstance(who, Identity):
        tensors = who.tensors
        return [
            who.method,
            *(hashlib.sha256(tensors[name].numpy().tobytes()).hexdigest() for name in sorted(tensors)),
        ]
    assert isinstance(who, Sitting)
    return [reference.sha256 for reference in who.references]


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]

"""`photomaker generate`: every possible user error is checked before a diffusion model is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from photomaker.apps import terminal
from photomaker.apps.identities import fitted
from photomaker.apps.signing import Signing
from photomaker.errors import SettingsError
from photomaker.images import grid, save_png
from photomaker.metadata import text_of
from photomaker.registry import names
from photomaker.studio.engine import Engine, names_of
from photomaker.studio.events import Denoised, Event, Note, Queued
from photomaker.studio.opening import PHOTOMAKER
from photomaker.studio.orders.batch import Finished, draw_rows, planned_rows, read_orders
from photomaker.studio.orders.extras import extras_of
from photomaker.studio.orders.order import IDENTITY_FILE, Order, Someone
from photomaker.studio.orders.planning import Plan
from photomaker.studio.orders.prompts import check_prompt
from photomaker.studio.photos.sitting import Sitting
from photomaker.studio.pictures.gallery import Cell
from photomaker.studio.pictures.saving import Target, check_file, check_folder, save_sheet, saved, target
from photomaker.studio.pictures.sheet import SheetRow, sheet
from photomaker.studio.provenance.consent import CONSENT, joined
from photomaker.studio.provenance.manifest import Sealing
from photomaker.types import Identity, Sample, Sampling

if TYPE_CHECKING:
    from photomaker.apps.elsewhere import Elsewhere
    from photomaker.studio.desk.workers import Drawer

PICTURES = 4
"""Pictures of each person and prompt by default."""


@dataclass(frozen=True)
class Asked:
    """The options of `photomaker generate`, as given."""

    prompts: tuple[str, ...]
    photos: tuple[Path, ...]
    identities: tuple[Path, ...]
    people: tuple[str, ...]
    pairs: bool
    n: int | None
    seeds: tuple[int, ...]
    best_of: int
    sampling: Sampling
    size: str | None
    style: str
    negative: str | None
    loras: tuple[str, ...]
    start: str | None
    strength: float
    mask: str | None
    controls: tuple[str, ...]
    t2i: str | None
    style_picture: str | None
    style_adapter: str | None
    redraw: str
    together: bool
    layout: tuple[str, ...]
    pose: str | None = None
    speed: str = "exact"

    def order(self) -> Order:
        """The order, with people as paths that are not opened yet.

        Raises:
            PhotoMakerError: Something in it cannot be done.
        """
        several = self.seeds if len(self.seeds) > 1 else ()
        return Order(
            self._everyone(), self.prompts, self.pairs, self.n or len(several) or PICTURES, several, self.best_of,
            self.sampling, self.size, self.style, self.negative,
            extras_of(
                self.loras, self.start, self.strength, self.mask, self.controls, self.t2i, self.style_picture,
                self.style_adapter, layout=self.layout, pose=self.pose,
            ),
            self.redraw, self.together, self.speed,
        )  # fmt: skip

    def _everyone(self) -> tuple[Someone, ...]:
        given = [bool(self.photos), bool(self.identities), bool(self.people)]
        if sum(given) != 1:
            raise SettingsError(
                "give either --photos or --identity: photos of one person, or saved people; or --person NAME=PHOTOS"
            )
        if self.photos:
            name = self.photos[0].stem if len(self.photos) == 1 else "person"
            return (Someone(list(self.photos), name),)
        if self.identities:
            return tuple(Someone(_loaded(path), path.stem) for path in self.identities)
        return tuple(_someone(text) for text in self.people)


@dataclass(frozen=True)
class Output:
    """Where the results go.

    Attributes:
        out: Folder or file.
        sheet: Whether to make a contact sheet, too.
        preview: File for the preview, updated at every step.
        kind: File format; None takes it from the file name, and PNG in a folder.
        signing: How they are signed.
    """

    out: Path
    sheet: bool = False
    preview: Path | None = None
    kind: str | None = None
    signing: Signing = Signing()  # noqa: RUF009 - frozen


def run(asked: Asked, output: Output, method: str | None = None, **engine_options: Any) -> None:
    """Check, generate, save and report.

    Args:
        asked: What was asked for.
        output: Where it goes.
        method: Name of the method; None is that of the saved identities, else PhotoMaker.
        **engine_options: Passed to `Engine.open`.

    Raises:
        PhotoMakerError: The order cannot be drawn.
    """
    people = max(len(asked.people), len(asked.identities)) if asked.together else 1
    for prompt in asked.prompts:
        _tell_trigger(prompt, asked.negative, people)
    order = asked.order()
    place = target(output.out, len(list(order.couples())) * order.n, output.kind)
    _check_preview(output.preview)
    seal = output.signing.sealing()
    engine = _opened([person.who for person in order.people], method, engine_options)
    plan = engine.plan(order)
    terminal.notes(plan.notes)
    plan = _with_identities(engine, plan)
    started = time.perf_counter()
    done: list[tuple[Path, Sample]] = []
    with terminal.progress("generating") as progress:
        pictures = engine.stream(plan, progress=progress, on_event=_listener(output.preview))
        done += saved(pictures, place, engine.about, seal=seal)
    _report(done, plan, engine, time.perf_counter() - started)
    if output.sheet:
        about = {**engine.about, **joined(sample.notes.get(CONSENT) for _, sample in done)}
        _save_sheet(_sheet(plan, done), _sheet_name(place, [path for path, _ in done]), about, seal)


def run_orders(
    file: Path,
    changes: Sequence[str],
    output: Output,
    beside: Sequence[str],
    method: str | None = None,
    elsewhere: Elsewhere | None = None,
    **engine_options: Any,
) -> None:
    """Draw a file of orders into a folder, or continue a stopped run.

    Args:
        file: The file of orders.
        changes: "a.b=value" each, which override the file's.
        output: The folder.
        beside: Options that were given but belong in the file.
        method: Name of the method; None is that of the saved identities, else PhotoMaker.
        elsewhere: Replicas that draw; None draws in this process.
        **engine_options: Passed to `Engine.open`.

    Raises:
        PhotoMakerError: Something in the orders cannot be done.
    """
    if beside:
        raise SettingsError(f"{beside[0]} cannot be combined with --orders; put it into the file of orders")
    rows = read_orders(file, changes)
    check_folder(output.out)
    _check_preview(output.preview)
    seal = output.signing.sealing()
    engine = _opened([one.who for row in rows for one in row.order.people], method, engine_options)
    plans = planned_rows(engine, rows)
    terminal.notes(dict.fromkeys(note for plan in plans for note in plan.notes))
    started = time.perf_counter()
    told = _listener(output.preview)
    options = {**engine_options, "method": engine.about["method"], "image_encoder": False}
    with _drawers(elsewhere, options) as drawers, terminal.progress("pictures there") as progress:
        finished = draw_rows(
            engine, rows, plans, output.out, progress, on_event=told, drawers=drawers, kind=output.kind or "png",
            seal=seal,
        )  # fmt: skip
    count = sum(len(one.paths) for one in finished)
    terminal.say(f"{count} pictures are in {output.out}; this run took {time.perf_counter() - started:.1f} s")
    sheet_file = output.out / f"sheet-{_digest(finished)}.png"
    _save_sheet(_sheet_of_files(file.name, finished), sheet_file, engine.about, seal)


@contextmanager
def _drawers(elsewhere: Elsewhere | None, options: Mapping[str, Any]) -> Iterator[Sequence[Drawer]]:
    if elsewhere is None:
        yield ()
        return
    with elsewhere.replicas(options) as replicas:
        yield replicas.drawers


# ---- before


def _tell_trigger(prompt: str, negative: str | None, people: int) -> None:
    complete = check_prompt(prompt, negative, people)
    if complete != prompt.strip():
        terminal.note(f"the trigger word was added: {complete}")


def _someone(text: str) -> Someone:
    name, equals, place = text.partition("=")
    if not (equals and name and place):
        raise SettingsError(
            f"{text!r} is not NAME=PHOTOS; write for example ada=photos/ada or ada=ada.safetensors"
        )
    path = Path(place)
    return Someone(_loaded(path) if path.suffix == IDENTITY_FILE else path, name)


def _loaded(path: Path) -> Identity:
    return Identity.load(path)


def _check_preview(preview: Path | None) -> None:
    if preview is not None:
        if preview.suffix.lower() != ".png":
            raise SettingsError(f"the preview is {preview}; give a name that ends in .png")
        check_file(preview)


def _opened(people: Sequence[object], method: str | None, engine_options: dict[str, Any]) -> Engine:
    loaded = [one for one in people if isinstance(one, Identity)]
    methods = {_method_of(one) for one in loaded}
    if method is None and len(methods) > 1:
        raise SettingsError(
            f"the identities were made by {' and '.join(sorted(methods))}; draw identities of one method at a time"
        )
    chosen = method or next(iter(methods), PHOTOMAKER)
    return Engine.open(**engine_options, method=chosen, image_encoder=len(loaded) < len(people))


def _method_of(identity: Identity) -> str:
    """The method that made a saved identity; PhotoMaker refuses unknown ones later."""
    # an identity also names its version or form: photomaker-v1, ip_adapter-plus
    name = identity.method.partition("-")[0]
    return name if name in names("method") else PHOTOMAKER


def _with_identities(engine: Engine, plan: Plan) -> Plan:
    """The plan with everybody's identity made and its notes printed."""
    with terminal.waiting("loading the model"):
        memory = getattr(engine.method, "plan", None)
    if memory is not None and memory.name != "max-speed":
        terminal.note(memory.line())
    word = engine.class_word(plan.prompts[0])
    people = tuple(
        replace(person, who=fitted(engine, person.who, word)) if isinstance(person.who, Sitting) else person
        for person in plan.order.people
    )
    return replace(plan, order=replace(plan.order, people=people), notes=())


# ---- while it draws


def _listener(preview: Path | None) -> Callable[[Event], None]:
    def told(event: Event) -> None:
        if isinstance(event, Note):
            terminal.note(event.text)
        elif isinstance(event, Queued):
            terminal.note(f"waiting for {event.place} jobs before this one")
        elif isinstance(event, Denoised) and preview is not None:
            preview.parent.mkdir(parents=True, exist_ok=True)
            pictures = event.preview()
            save_png(grid(pictures, columns=len(pictures)), preview)

    return told


# ---- after


def _report(done: Sequence[tuple[Path, Sample]], plan: Plan, engine: Engine, seconds: float) -> None:
    several = len(plan.order.people) > 1
    people = {person.name: person.who for person in plan.order.people}
    columns = ("file", *(("person",) if several else ()), "seed", "likeness", "verdict")
    rows = []
    for path, sample in done:
        name, score = sample.notes["person"], sample.likeness
        who = people.get(name)
        found = engine.verdict(score, who) if score is not None and isinstance(who, Identity) else None
        cells = (
            str(sample.request.sampling.seed),
            terminal.likeness(score),
            "" if found is None else found.short,
        )
        rows.append((str(path), *((name,) if several else ()), *cells))
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    terminal.table(f"{len(rows)} pictures in {seconds:.1f} s", columns, rows, ("seed", "likeness"))
    if columns[-1] == "verdict":
        terminal.say("percent: 0 is a stranger, 100 is the likeness of the person's own photos to each other")


def _sheet(plan: Plan, done: Sequence[tuple[Path, Sample]]) -> Image.Image:
    rows = []
    for place, group in enumerate(plan.groups):
        own = done[place * plan.order.n : (place + 1) * plan.order.n]
        name = names_of(plan.order, group.person)
        cells = [_cell(sample.image, sample.request.sampling.seed, sample.likeness) for _, sample in own]
        rows.append(SheetRow(f"{name}: {plan.prompts[group.prompt]}", cells))
    return sheet("photomaker generate", rows)


def _cell(image: Image.Image, seed: object, likeness: float | None) -> Cell:
    return Cell(image, f"seed {seed}" if likeness is None else f"seed {seed}, likeness {likeness:.2f}")


def _sheet_of_files(title: str, finished: Sequence[Finished]) -> Image.Image:
    rows = []
    for one in finished:
        cells = []
        for path in one.paths:
            with Image.open(path) as image:
                image.load()
                text = text_of(image)
            score = text.get("likeness")
            cells.append(_cell(image, text.get("seed", "?"), None if score is None else float(score)))
        rows.append(SheetRow(one.row.label, cells))
    return sheet(title, rows)


def _digest(finished: Sequence[Finished]) -> str:
    """Identifies the pictures of a run, so that the sheet of another run is not overwritten."""
    import hashlib

    listed = "\n".join(path.name for one in finished for path in one.paths)
    return hashlib.sha256(listed.encode()).hexdigest()[:8]


def _sheet_name(place: Target, paths: Sequence[Path]) -> Path:
    stem = paths[0].stem if len(paths) == 1 else f"{paths[0].stem}-{paths[-1].stem}"
    return place.folder / f"{stem}-sheet.png"


def _save_sheet(picture: Image.Image, path: Path, about: Mapping[str, str], seal: Sealing) -> None:
    with suppress(FileExistsError):  # the same pictures as in an earlier run: this is their sheet
        save_sheet(picture, path, about, seal=seal)
    terminal.say(f"the sheet is {path}")

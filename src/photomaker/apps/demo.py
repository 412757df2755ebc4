"""`photomaker demo`: a gallery of two bundled people, made from their photos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from photomaker import weights
from photomaker.apps import terminal
from photomaker.apps.signing import Signing
from photomaker.errors import OutputError, WeightsError
from photomaker.studio.engine import Engine, Progress, mix
from photomaker.studio.photos.sitting import Sitting
from photomaker.studio.pictures.gallery import Cell, Section, draw
from photomaker.studio.pictures.saving import check_file, save_sheet
from photomaker.studio.provenance.manifest import Sealing
from photomaker.types import Identity, Request, Sample, Sampling

PHOTOS = 3
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MIXED = "a photo of a person img in a studio"


@dataclass(frozen=True)
class Somebody:
    """A bundled person.

    Attributes:
        name: Folder under the bundled people.
        word: Class word.
        other: Class word of the other gender.
        child: Class word of a subclass of the same gender.
    """

    name: str
    word: str
    other: str
    child: str


PEOPLE = (Somebody("ada", "woman", "man", "girl"), Somebody("ben", "man", "woman", "boy"))

PROMPTS = (
    ("on the beach", "a photo of a {word} img on the beach"),
    ("sunglasses, in the snow", "a photo of a {word} img wearing sunglasses in the snow"),
    ("red cap, in the forest", "a photo of a {word} img wearing a red cap in the forest"),
    ("black suit, in the city", "a photo of a {word} img wearing a black suit in the city"),
    ("glasses, in a library", "a photo of a {word} img wearing glasses in a library"),
    ("purple hoodie, in space", "a photo of a {word} img wearing a purple hoodie in space"),
    ("a painting", "a painting of a {word} img"),
    ("a sketch", "a sketch of a {word} img"),
    ("a watercolour", "a watercolour of a {word} img in a meadow"),
    ("as an old {word}", "a photo of an old {word} img in a studio"),
    ("as a {child}", "a photo of a {child} img in a studio"),
    ("as a {other}", "a photo of a {other} img in a studio"),
)
"""Caption and prompt: scenes, clothes, hat, glasses, styles, age and gender by class word."""


@dataclass(frozen=True)
class Made:
    """A person with the pictures made from the photos."""

    somebody: Somebody
    sitting: Sitting
    identity: Identity
    samples: tuple[Sample, ...]
    seconds: float


def run(
    out: Path, sampling: Sampling, device: str = "auto", dtype: str = "auto", provenance: bool = True
) -> None:
    """Make the gallery and print the timings.

    Raises:
        PhotoMakerError: The file cannot be written, or the bundled model or people are missing or altered.
    """
    check_file(out)
    seal = Signing(provenance).sealing()
    folders = [person_folder(somebody.name) for somebody in PEOPLE]
    started = time.perf_counter()
    with terminal.waiting("loading the model"):
        engine = Engine.open(device=device, dtype=dtype)
        sittings = [engine.look(sorted(folder.glob("*.png"))[:PHOTOS]) for folder in folders]
        engine.method  # noqa: B018 - loads the model
    loading = time.perf_counter() - started
    total = len(PEOPLE) * len(PROMPTS) + len(SHARES)
    with terminal.progress("generating") as progress:
        made: list[Made] = []
        for place, (somebody, sitting) in enumerate(zip(PEOPLE, sittings, strict=True)):
            made.append(
                make(engine, somebody, sitting, sampling, _shifted(progress, place * len(PROMPTS), total))
            )
        cells, mixing = mix_cells(engine, made[0], made[1], sampling)
        progress(total, total)
    _save(out, [section(one) for one in made] + [_mix_section(made, cells)], engine, seal)
    _report(out, made, loading, mixing)


def person_folder(name: str) -> Path:
    """The folder with the photos of a bundled person.

    Raises:
        WeightsError: The photos are missing.
    """
    folder = weights.ASSETS / "people" / name
    if not any(folder.glob("*.png")):
        raise WeightsError(
            f"the photos of the bundled person {name} are missing ({folder}); install photomaker again"
        )
    return folder


def make(
    engine: Engine, somebody: Somebody, sitting: Sitting, sampling: Sampling, progress: Progress
) -> Made:
    """Draw every prompt for one person."""
    started = time.perf_counter()
    identity = engine.identity(sitting)
    requests = [
        Request(_filled(prompt, somebody), replace(sampling, seed=sampling.seed + place))
        for place, (_, prompt) in enumerate(PROMPTS)
    ]
    samples = engine.draw(identity, requests, progress=progress)
    return Made(somebody, sitting, identity, tuple(samples), time.perf_counter() - started)


def mix_cells(engine: Engine, first: Made, second: Made, sampling: Sampling) -> tuple[list[Cell], float]:
    """Mixes of two people, with their likeness to both, and the seconds taken."""
    started = time.perf_counter()
    cells = []
    for share in SHARES:
        # one class word for all would conflict with the people's own, so it follows the larger share
        somebody = (first if share < 0.5 else second).somebody  # noqa: PLR2004 - half
        request = Request(MIXED.replace("person", somebody.word), sampling)
        sample = engine.draw(mix(first.identity, second.identity, share), [request])[0]
        scores = [
            terminal.likeness(engine.likeness([sample.image], one.identity)[0]) for one in (first, second)
        ]
        names = [one.somebody.name.title() for one in (first, second)]
        text = f"{names[0]} {1 - share:.0%}, {names[1]} {share:.0%}"
        cells.append(
            Cell(sample.image, text, " · ".join(f"{n} {s}" for n, s in zip(names, scores, strict=True)))
        )
    return cells, time.perf_counter() - started


def section(made: Made) -> Section:
    """One person's part of the gallery."""
    cells = [
        Cell(sample.image, _filled(caption, made.somebody), f"likeness {terminal.likeness(sample.likeness)}")
        for (caption, _), sample in zip(PROMPTS, made.samples, strict=True)
    ]
    photos = [reference.image for reference in made.sitting.references]
    return Section(f"{made.somebody.name.title()}: {len(photos)} photos in, new pictures out", photos, cells)


def _mix_section(made: Sequence[Made], cells: Sequence[Cell]) -> Section:
    names = " and ".join(one.somebody.name.title() for one in made)
    return Section(f"Between {names}: mixed identities", [], cells)


def _filled(text: str, somebody: Somebody) -> str:
    return text.format(word=somebody.word, other=somebody.other, child=somebody.child)


def _shifted(progress: Progress, done: int, total: int) -> Progress:
    return lambda part, _: progress(done + part, total)


def _save(out: Path, sections: Sequence[Section], engine: Engine, seal: Sealing) -> None:
    sheet = draw(
        "photomaker",
        "A few photos of a person in, new pictures of that person out. The people are drawn by code.",
        sections,
        "likeness: mean cosine between the face in a picture and the faces in the photos; 1 is the same photo.",
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {out.parent}: {error.strerror}; choose another folder") from error
    save_sheet(sheet, out, engine.about, overwrite=True, seal=seal)


def _report(out: Path, made: Sequence[Made], loading: float, mixing: float) -> None:
    rows = [
        (one.somebody.name, _filled(caption, one.somebody), terminal.likeness(sample.likeness))
        for one in made
        for (caption, _), sample in zip(PROMPTS, one.samples, strict=True)
    ]
    terminal.table("Pictures", ("person", "picture", "likeness"), rows, ("likeness",))
    count = len(PROMPTS)
    times = [("loading the model", "", f"{loading:.1f}", "")]
    times += [
        (one.somebody.name, str(count), f"{one.seconds:.1f}", f"{one.seconds / count:.2f}") for one in made
    ]
    times.append(("mixing", str(len(SHARES)), f"{mixing:.1f}", f"{mixing / len(SHARES):.2f}"))
    columns = ("what", "pictures", "seconds", "seconds a picture")
    terminal.table("Times", columns, times, columns[1:])
    terminal.say(f"the gallery is {out}")

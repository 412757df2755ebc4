"""A folder of photos for each person, with planted faults of collected photos, and the ground truth.

Everything comes from the plan: the same plan writes the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from photomaker.classes import fitting
from photomaker.errors import OutputError, SettingsError
from photomaker.files import atomic
from photomaker.outside import read_file
from photomaker.processes import serve_parent
from photomaker.synthetic.distributions import TEST, person, view
from photomaker.synthetic.factors import SCENES
from photomaker.synthetic.renderer import render
from photomaker.synthetic.scenes import paint_scene
from photomaker.synthetic.served import PLAIN, WAYS, address

GENUINE = "none"
PLANTED: Mapping[str, float] = {
    GENUINE: 0.58,
    "stranger": 0.1,
    "two people": 0.08,
    "exact duplicate": 0.05,
    "near duplicate": 0.05,
    "small face": 0.05,
    "no face": 0.05,
    "corrupt": 0.04,
}
"""What a file may be, and the share of the files that are. The first three of a person are always genuine."""

TRUTH, PHOTOS, MASKS = "truth.json", "photos", "masks"
FORMAT = "photomaker-planted-2"
_FIRST = 3
_SMALL = 0.45
_NEAR = 0.9


@dataclass(frozen=True)
class PlantedPlan:
    """What is written.

    Attributes:
        people: How many people, 1 or more.
        photos: Files of each, 4 or more.
        size: Height of the photos in pixels, 72..1024; they are as wide, those of two people wider.
        start: Person index of the first one; nothing was trained on people from `TEST` on.
        served: Whether the photos are to be given in all of `photomaker.synthetic.served.WAYS`, not plainly alone.

    Raises:
        SettingsError: A value is out of range.
    """

    people: int = 40
    photos: int = 10
    size: int = 384
    start: int = TEST
    served: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.people < 1 or self.photos <= _FIRST or not 72 <= self.size <= 1024 or self.start < 0:
            raise SettingsError(
                f"{self} is not a planted world; give people 1 or more, photos {_FIRST + 1} or more, size 72 to 1024"
            )


@dataclass(frozen=True)
class _Shot:
    """A picture, the mask of its main person, and everybody's face: (person index, box)."""

    image: Image.Image
    mask: np.ndarray | None
    faces: tuple[tuple[int, tuple[float, ...]], ...]


def write_planted(folder: Path, plan: PlantedPlan, workers: int = 1) -> Path:
    """Write the photos, the masks and `truth.json`, which comes last.

    The truth holds for each file of `photos`, named "PERSON/FILE": `planted`, one of `PLANTED`; `person`, whom it
    shows in truth; `faces`, each with `person` and `box` x0, y0, x1, y1; `mask`, the path of the main person's mask;
    `class_words`, all that are true of the main person; `original`, of what it is a duplicate; `served`, in which of
    `photomaker.synthetic.served.WAYS` a server gives it (the first three of a person always arrive); `due`, for what
    reason it must be dropped when it is gathered, empty if it must not.

    Args:
        folder: Where; made if missing. A folder in which this plan was written before is left as it is.
        plan: What.
        workers: Processes that draw.

    Returns:
        The folder.

    Raises:
        SettingsError: The folder holds another planted world.
        OutputError: The folder cannot be written to.
    """
    stated = folder / TRUTH
    if stated.is_file():
        if read_file(stated, "choose an empty folder").get("plan") != asdict(plan):
            raise SettingsError(f"{folder} holds another planted world; choose an empty folder")
        return folder
    tasks = [(folder, plan, number) for number in range(plan.people)]
    try:
        if workers > 1:
            with multiprocessing.get_context("spawn").Pool(workers, serve_parent) as pool:
                parts = pool.map(_write_person, tasks, chunksize=1)
        else:
            parts = [_write_person(task) for task in tasks]
        files = {name: told for part in parts for name, told in part.items()}
        content = {"format": FORMAT, "plan": asdict(plan), "files": files}
        with atomic(stated) as file:
            file.write(json.dumps(content, indent=1).encode())
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return folder


def write_urls(folder: Path, port: int, path: Path) -> Path:
    """Write a list "name,url" of the photos as `photomaker.synthetic.served.serve` serves them.

    Args:
        folder: Of a planted world.
        port: Of the server.
        path: The list to write, CSV with a heading.

    Raises:
        OutputError: The list cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "url"])
    files = read_file(folder / TRUTH, "choose an empty folder")["files"]
    for name, told in files.items():
        rows.writerow([name.partition("/")[0], address(told["served"], name, port)])
    try:
        with atomic(path) as file:
            file.write(text.getvalue().encode())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another place") from error
    return path


def _write_person(task: tuple[Path, PlantedPlan, int]) -> dict[str, dict[str, Any]]:
    folder, plan, number = task
    index = plan.start + number
    rng = np.random.default_rng((17, index))
    kinds = [GENUINE] * _FIRST + rng.choice(
        list(PLANTED), plan.photos - _FIRST, p=list(PLANTED.values())
    ).tolist()
    ways = _ways(plan, index)
    files: dict[str, dict[str, Any]] = {}
    shots: dict[str, _Shot] = {}
    for place, kind in enumerate(kinds):
        name = f"{index}/{place:03d}.jpg"
        # strangers are people of nobody's folder
        stranger = plan.start + plan.people + number * plan.photos + place
        original = None
        if kind.endswith("duplicate"):
            original = f"{index}/{int(rng.integers(_FIRST)):03d}.jpg"
            shot = shots[original]
            data = (folder / PHOTOS / original).read_bytes()
            if kind == "near duplicate":
                shot = _scaled(shot, _NEAR)
                data = _encoded(ImageEnhance.Brightness(shot.image).enhance(1.04), 60)
        else:
            shot = _shot(kind, index, stranger, place, plan.size, rng)
            data = _encoded(shot.image, 92)
            if kind == "corrupt":
                data = data[: len(data) // 3]
                shot = replace(shot, faces=(), mask=None)
        shots[name] = shot
        _write(folder / PHOTOS / name, data)
        files[name] = _told(kind, shot, original, ways[place])
        if shot.mask is not None:
            files[name]["mask"] = f"{MASKS}/{index}/{place:03d}.png"
            buffer = io.BytesIO()
            Image.fromarray(shot.mask).save(buffer, format="PNG")
            _write(folder / files[name]["mask"], buffer.getvalue())
    return files


def _ways(plan: PlantedPlan, index: int) -> list[str]:
    """How the photos of a person are served; from a generator of its own, so that the photos are the same."""
    if not plan.served:
        return [PLAIN] * plan.photos
    rng = np.random.default_rng((23, index))
    shares = np.array([way.share for way in WAYS.values()])
    sound = shares * [not way.reason for way in WAYS.values()]
    return [
        *rng.choice(list(WAYS), _FIRST, p=sound / sound.sum()).tolist(),
        *rng.choice(list(WAYS), plan.photos - _FIRST, p=shares / shares.sum()).tolist(),
    ]


def _told(kind: str, shot: _Shot, original: str | None, way: str) -> dict[str, Any]:
    main = shot.faces[0][0] if shot.faces else None
    words = [] if main is None else list(fitting(person(main).person_class.split()[-1]))
    faces = [{"person": str(who), "box": [round(value, 2) for value in box]} for who, box in shot.faces]
    return {
        "planted": kind, "person": None if main is None else str(main), "faces": faces, "mask": None,
        "class_words": words, "original": original, "served": way,
        "due": WAYS[way].reason or ("corrupt" if kind == "corrupt" else ""),
    }  # fmt: skip


def _shot(kind: str, index: int, stranger: int, seed: int, size: int, rng: np.random.Generator) -> _Shot:
    match kind:
        case "stranger":
            return _portrait(stranger, seed, size)
        case "two people":
            return _side_by_side(
                _portrait(index, seed, size), _portrait(stranger, seed, size), bool(rng.integers(2))
            )
        case "small face":
            return _far_away(_portrait(index, seed, int(size * _SMALL)), _backdrop(size, rng))
        case "no face":
            return _Shot(_backdrop(size, rng), None, ())
    return _portrait(index, seed, size)


def _portrait(index: int, seed: int, size: int) -> _Shot:
    someone = person(index)
    picture = render(someone, view(someone, seed, style="photo"), size)
    return _Shot(Image.fromarray(picture.image), picture.mask, ((index, picture.box),))


def _backdrop(size: int, rng: np.random.Generator) -> Image.Image:
    scene = paint_scene(str(rng.choice(SCENES)), size, int(rng.integers(65536)))
    pixels = (np.clip(scene, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _side_by_side(main: _Shot, other: _Shot, swapped: bool) -> _Shot:
    """The middle parts of two portraits beside each other."""
    size = main.image.height
    cut = round(size * 0.14)
    width = size - 2 * cut
    left, right = (other, main) if swapped else (main, other)
    image = Image.new("RGB", (2 * width, size))
    mask = np.zeros((size, 2 * width), np.uint8)
    for shot, x in ((left, 0), (right, width)):
        image.paste(shot.image.crop((cut, 0, cut + width, size)), (x, 0))
    assert main.mask is not None
    x = width if swapped else 0
    mask[:, x : x + width] = main.mask[:, cut : cut + width]
    moves = (x - cut, (0 if swapped else width) - cut)
    faces = tuple(
        (shot.faces[0][0], _moved(shot.faces[0][1], 1.0, move, 0.0))
        for shot, move in zip((main, other), moves, strict=True)
    )
    return _Shot(image, mask, faces)


def _far_away(shot: _Shot, backdrop: Image.Image) -> _Shot:
    """A small person at the lower edge of a scene."""
    assert shot.mask is not None
    x, y = (backdrop.width - shot.image.width) // 2, backdrop.height - shot.image.height
    image = backdrop.copy()
    image.paste(shot.image, (x, y), Image.fromarray(shot.mask))
    mask = np.zeros((backdrop.height, backdrop.width), np.uint8)
    mask[y:, x : x + shot.image.width] = shot.mask
    return _Shot(image, mask, tuple((who, _moved(box, 1.0, x, y)) for who, box in shot.faces))


def _scaled(shot: _Shot, factor: float) -> _Shot:
    assert shot.mask is not None
    size = (round(shot.image.width * factor), round(shot.image.height * factor))
    mask = np.asarray(Image.fromarray(shot.mask).resize(size, Image.Resampling.NEAREST))
    faces = tuple((who, _moved(box, factor, 0.0, 0.0)) for who, box in shot.faces)
    return _Shot(shot.image.resize(size, Image.Resampling.LANCZOS), mask, faces)


def _moved(box: tuple[float, ...], factor: float, x: float, y: float) -> tuple[float, ...]:
    x0, y0, x1, y1 = box
    return x0 * factor + x, y0 * factor + y, x1 * factor + x, y1 * factor + y


def _encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)

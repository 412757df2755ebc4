"""Pictures on disk: checked for before any model runs, never in the place of another file, and saying what they are."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from photomaker.errors import OutputError
from photomaker.images import save_png
from photomaker.types import Extras, Sample, Structure

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
_NUMBERED = re.compile(r"(\d+)\.png")


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Make sure that files can be written to a folder, by writing one; nothing stays behind.

    Args:
        folder: It may not exist yet; then the nearest folder above it is tried, and it is made when pictures are saved.

    Raises:
        OutputError: Nothing can be written there.
    """
    folder = Path(folder)
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OutputError(f"cannot write to {folder}: {nearest} is no folder; choose another folder")
    try:
        # A folder inside, because that is what a folder still to be made needs as well.
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".photomaker-"):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return folder


def check_file(path: str | os.PathLike[str]) -> Path:
    """Make sure that a file can be written.

    Raises:
        OutputError: There is a folder of that name, or nothing can be written beside it.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file in it")
    check_folder(path.parent)
    return path


@dataclass(frozen=True)
class Target:
    """Where pictures go: into a folder under running numbers, or one picture into a file of that name.

    Attributes:
        folder: The folder.
        file: The file's name in it; None numbers.
    """

    folder: Path
    file: str | None = None


def target(out: str | os.PathLike[str], pictures: int) -> Target:
    """What a place for pictures means, and whether they can be written there; nothing is left behind.

    Args:
        out: A folder, or for one picture a name that ends in `.png`, unless there is a folder of that name.
        pictures: How many there will be.

    Raises:
        OutputError: Several pictures have one file's name, the file is there already or has another ending, or nothing
            can be written there.
    """
    path = Path(out)
    if path.is_dir() or path.suffix.lower() not in _PICTURES:
        return Target(check_folder(path))
    if path.suffix.lower() != ".png":
        raise OutputError(f"pictures are written as PNG, and {path} ends in {path.suffix}; end it in .png")
    if pictures != 1:
        raise OutputError(
            f"{path} is the name of one file and there will be {pictures} pictures; give a folder, or ask for one"
        )
    if path.exists():
        raise OutputError(f"there is a file {path} already, and none is ever replaced; give another name")
    return Target(check_folder(path.parent), path.name)


def save_samples(
    samples: Iterable[Sample],
    folder: str | os.PathLike[str] | Target,
    about: Mapping[str, str] | None = None,
) -> list[Path]:
    """Save pictures as `0001.png` and on, after the highest number in the folder; no file is ever replaced.

    Args:
        samples: What was generated; each is saved as soon as it comes.
        folder: It is made where it does not exist; or a `Target`.
        about: Text to put into every file, for example the hash of the model.

    Returns:
        The files, in the order of the samples.

    Raises:
        OutputError: They cannot be written.
    """
    return [path for path, _ in saved(samples, folder, about)]


def saved(
    samples: Iterable[Sample],
    folder: str | os.PathLike[str] | Target,
    about: Mapping[str, str] | None = None,
) -> Iterator[tuple[Path, Sample]]:
    """Save pictures as they come, and hand them on with their files; see `save_samples`."""
    place = folder if isinstance(folder, Target) else Target(Path(folder))
    number: int | None = None
    for sample in samples:
        number = _last_number(place.folder) if number is None else number
        if place.file is not None:
            path = save_named(sample, place.folder / place.file, about)
        else:
            path, number = _save_next(sample, place.folder, number + 1, about or {})
        yield path, sample


def _last_number(folder: Path) -> int:
    """The highest number of a picture in a folder, which is made where it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [_NUMBERED.fullmatch(path.name) for path in folder.iterdir()]
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return max((int(one[1]) for one in found if one), default=0)


def save_named(sample: Sample, path: Path, about: Mapping[str, str] | None = None) -> Path:
    """Save a picture under a name of its own.

    Raises:
        OutputError: There is a file of that name, or it cannot be written.
    """
    try:
        return save_png(sample.image, path, {**(about or {}), **describe(sample)}, overwrite=False)
    except FileExistsError as error:
        raise OutputError(
            f"there is a file {path} already, and none is ever replaced; give another name"
        ) from error


def _save_next(sample: Sample, folder: Path, number: int, about: Mapping[str, str]) -> tuple[Path, int]:
    metadata = {**about, **describe(sample)}
    while True:
        try:
            return save_png(sample.image, folder / f"{number:04d}.png", metadata, overwrite=False), number
        except FileExistsError:  # another process took this number meanwhile
            number += 1


def describe(sample: Sample) -> dict[str, str]:
    """What a picture's file says about it: all that makes it again alone, and its likeness."""
    request, sampling = sample.request, sample.request.sampling
    facts = {
        **sample.notes,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": sampling.seed,
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "guidance_start": sampling.guidance_start or None,
        "guidance_stop": None if sampling.guidance_stop == 1 else sampling.guidance_stop,
        "merge": sampling.merge,
        "scheduler": sampling.scheduler,
        "width": sampling.width,
        "height": sampling.height,
        "likeness": None if sample.likeness is None else f"{sample.likeness:.3f}",
        **_extras(request.extras),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _extras(extras: Extras) -> dict[str, str]:
    """The extras in words; pictures are named by the hash of their pixels."""
    facts: dict[str, str] = {}
    if extras.loras:
        facts["lora"] = ", ".join(f"{one.source} {one.weight:g}" for one in extras.loras)
    if extras.start is not None:
        facts["start"] = f"{pixels_hash(extras.start.image)} strength {extras.start.strength:g}"
        if extras.start.mask is not None:
            facts["mask"] = pixels_hash(extras.start.mask)
    if extras.controls:
        facts["control"] = ", ".join(map(_structure, extras.controls))
    if extras.t2i is not None:
        facts["t2i"] = _structure(extras.t2i)
    if extras.style_picture is not None:
        own = extras.style_picture
        facts["style_picture"] = f"{own.adapter or 'bundled'} {pixels_hash(own.image)} scale {own.scale:g}"
    if extras.layout:
        facts["layout"] = "; ".join(map(_place, extras.layout))
    if extras.pose is not None:
        source, scale = extras.pose.source, extras.pose.scale
        called = source if isinstance(source, str) else pixels_hash(source)
        facts["pose"] = called if scale is None else f"{called} scale {scale:g}"
    return facts


def _place(place: object) -> str:
    if isinstance(place, Image.Image):
        return f"mask {pixels_hash(place)}"
    return place if isinstance(place, str) else ",".join(f"{edge:g}" for edge in place)  # type: ignore[attr-defined]


def _structure(one: Structure) -> str:
    return f"{one.model} {pixels_hash(one.image)} scale {one.scale:g} from {one.start:g} to {one.stop:g}"


def pixels_hash(image: Image.Image) -> str:
    """What tells a picture from others: the beginning of the SHA-256 of its size and RGB pixels."""
    rgb = image.convert("RGB")
    return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()[:16]

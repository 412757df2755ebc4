"""Pictures on disk: checked for before any model runs, never in the place of another file, and saying what they are."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from photomaker.checks import one_of
from photomaker.errors import OutputError, ProvenanceError
from photomaker.images import write_whole
from photomaker.metadata import BY_MODEL, EDITED_BY_MODEL, KINDS, encoded, kind_of
from photomaker.studio.provenance import NOTE, NOTED, Sealing, facts_of, seal_of
from photomaker.types import Extras, Sample, Shortcuts, Structure

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
_NUMBERED = re.compile(r"(\d+)\.(?:png|jpg|jpeg|webp)")


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
        kind: What numbered files are written as, of `photomaker.metadata.KINDS`.
    """

    folder: Path
    file: str | None = None
    kind: str = "png"


def target(out: str | os.PathLike[str], pictures: int, kind: str | None = None) -> Target:
    """What a place for pictures means, and whether they can be written there; nothing is left behind.

    Args:
        out: A folder, or for one picture a name that ends in `.png`, `.jpg` or `.webp`, unless there is a folder of
            that name.
        pictures: How many there will be.
        kind: `png`, `jpeg` or `webp`; None is what the name says, in a folder PNG.

    Raises:
        SettingsError: The kind is unknown.
        OutputError: Several pictures have one file's name, the file is there already or has another ending, or nothing
            can be written there.
    """
    path = Path(out)
    if kind is not None:
        one_of("the format", kind, tuple(KINDS))
    if path.is_dir() or path.suffix.lower() not in _PICTURES:
        return Target(check_folder(path), kind=kind or "png")
    named = kind_of(path)
    if named is None:
        raise OutputError(
            f"pictures are written as PNG, JPEG or WebP, and {path} ends in {path.suffix}; end it in .png, "
            ".jpg or .webp"
        )
    if kind not in (None, named):
        raise OutputError(f"the format is {kind}, and {path} ends in {path.suffix}; leave the format out")
    if pictures != 1:
        raise OutputError(
            f"{path} is the name of one file and there will be {pictures} pictures; give a folder, or ask for one"
        )
    if path.exists():
        raise OutputError(f"the file {path} exists already and is never replaced; give another name")
    return Target(check_folder(path.parent), path.name, named)


def save_samples(
    samples: Iterable[Sample],
    folder: str | os.PathLike[str] | Target,
    about: Mapping[str, str] | None = None,
    *,
    seal: Sealing = True,
) -> list[Path]:
    """Save pictures as `0001.png` and on, after the highest number in the folder; no file is ever replaced.

    Args:
        samples: What was generated; each is saved as soon as it comes.
        folder: It is made where it does not exist; or a `Target`.
        about: Text to put into every file, for example the hash of the model.
        seal: What signs the pictures: a `Seal`, True for the user's own where `photomaker[provenance]` is installed, or
            False for nothing.

    Returns:
        The files, in the order of the samples.

    Raises:
        OutputError: They cannot be written.
    """
    return [path for path, _ in saved(samples, folder, about, seal=seal)]


def saved(
    samples: Iterable[Sample],
    folder: str | os.PathLike[str] | Target,
    about: Mapping[str, str] | None = None,
    *,
    seal: Sealing = True,
) -> Iterator[tuple[Path, Sample]]:
    """Save pictures as they come, and hand them on with their files; see `save_samples`."""
    place = folder if isinstance(folder, Target) else Target(Path(folder))
    number: int | None = None
    for sample in samples:
        number = _last_number(place.folder) if number is None else number
        if place.file is not None:
            path = save_named(sample, place.folder / place.file, about, seal=seal)
        else:
            data = file_of(sample, place.kind, about, seal=seal)
            path, number = _save_next(data, place, number + 1)
        yield path, sample


def _last_number(folder: Path) -> int:
    """The highest number of a picture in a folder, which is made where it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [_NUMBERED.fullmatch(path.name) for path in folder.iterdir()]
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return max((int(one[1]) for one in found if one), default=0)


def save_named(
    sample: Sample, path: Path, about: Mapping[str, str] | None = None, *, seal: Sealing = True
) -> Path:
    """Save a picture under a name of its own, whose ending names the kind of file; PNG where it names none.

    Args:
        sample: The picture.
        path: Where.
        about: Text to put into the file.
        seal: What signs it; see `save_samples`.

    Raises:
        OutputError: There is a file of that name, or it cannot be written.
    """
    try:
        return write_whole(path, file_of(sample, kind_of(path) or "png", about, seal=seal), overwrite=False)
    except FileExistsError as error:
        raise OutputError(
            f"the file {path} exists already and is never replaced; give another name"
        ) from error


def _save_next(data: bytes, place: Target, number: int) -> tuple[Path, int]:
    while True:
        path = place.folder / f"{number:04d}{KINDS[place.kind]}"
        try:
            return write_whole(path, data, overwrite=False), number
        except FileExistsError:  # another process took this number meanwhile
            number += 1


def file_of(
    sample: Sample, kind: str = "png", about: Mapping[str, str] | None = None, *, seal: Sealing = True
) -> bytes:
    """A picture as the bytes of a file: with its text, the mark of generated pictures, and a manifest.

    Args:
        sample: The picture.
        kind: Of `photomaker.metadata.KINDS`.
        about: Text to put into the file.
        seal: What signs it; see `save_samples`.
    """
    drawn_into = sample.request.extras.start is not None
    text = {**(about or {}), **describe(sample)}
    return _sealed(sample.image, kind, text, about or {}, EDITED_BY_MODEL if drawn_into else BY_MODEL, seal)


def save_sheet(
    picture: Image.Image,
    path: str | os.PathLike[str],
    about: Mapping[str, str] | None = None,
    overwrite: bool = False,
    *,
    seal: Sealing = True,
) -> Path:
    """Save a sheet of generated pictures as PNG.

    Args:
        picture: The sheet.
        path: Where.
        about: Text to put into the file.
        overwrite: Whether a file of that name may be replaced.
        seal: What signs it; see `save_samples`.

    Raises:
        FileExistsError: `overwrite` is false and there is a file of that name.
        OutputError: It cannot be written.
    """
    return write_whole(path, _sealed(picture, "png", about or {}, about or {}, BY_MODEL, seal), overwrite)


def _sealed(
    picture: Image.Image,
    kind: str,
    text: Mapping[str, str],
    about: Mapping[str, str],
    source: str,
    sealing: Sealing,
) -> bytes:
    """The file, signed if anything signs; a picture is never lost because it cannot be signed."""
    seal = seal_of(sealing)
    if seal is not None:
        try:
            signed = encoded(picture, kind, {**text, NOTE: NOTED}, source)
            lossless = kind == "png" and picture.mode == "RGB"
            facts = facts_of(about, text, source, seal.prompt)
            return seal.signed(signed, kind, facts, picture if lossless else None)
        except ProvenanceError as error:
            warnings.warn(f"a picture is saved without a manifest: {error}", stacklevel=2)
    return encoded(picture, kind, text, source)


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
        "shortcuts": _shortcuts(sampling.shortcuts),
        "width": sampling.width,
        "height": sampling.height,
        "likeness": None if sample.likeness is None else f"{sample.likeness:.3f}",
        **_extras(request.extras),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _shortcuts(given: Shortcuts) -> str | None:
    """What was left out, in words; None where nothing was."""
    told = []
    if given.deep_every > 1:
        told.append(f"deep every {given.deep_every} from {given.deep_after:g}, outer {given.outer}")
    if given.words_after < 1:
        told.append(f"words to {given.words_after:g}")
    return ", ".join(told) or None


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

"""Saves pictures: checks the target before any model runs, never overwrites a file, and writes metadata."""

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
from photomaker.studio.provenance.manifest import NOTE, NOTED, Sealing, facts_of, seal_of
from photomaker.types import Extras, Sample, Shortcuts, Structure

_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
_NUMBERED = re.compile(r"(\d+)\.(?:png|jpg|jpeg|webp)")


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Check that files can be written to a folder, by writing one and removing it.

    Args:
        folder: If it does not exist, its nearest existing parent is tested; it is created when pictures are saved.

    Raises:
        OutputError: The folder cannot be written to.
    """
    folder = Path(folder)
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise OutputError(f"cannot write to {folder}: {nearest} is not a folder; choose another folder")
    try:
        # test with a subfolder, because a missing folder must be created the same way
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".photomaker-"):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return folder


def check_file(path: str | os.PathLike[str]) -> Path:
    """Check that a file can be written.

    Raises:
        OutputError: It is a folder, or its folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file in it")
    check_folder(path.parent)
    return path


@dataclass(frozen=True)
class Target:
    """Target of pictures: a folder with numbered files, or a single file.

    Attributes:
        folder: The folder.
        file: The file's name in it; None numbers the files.
        kind: Format of numbered files, one of `photomaker.metadata.KINDS`.
    """

    folder: Path
    file: str | None = None
    kind: str = "png"


def target(out: str | os.PathLike[str], pictures: int, kind: str | None = None) -> Target:
    """Interpret a target for pictures and check that it can be written to.

    Args:
        out: A folder, or for one picture a name that ends in `.png`, `.jpg` or `.webp` and is not an existing folder.
        pictures: Number of pictures.
        kind: `png`, `jpeg` or `webp`; None takes it from the name, and PNG in a folder.

    Raises:
        SettingsError: The kind is unknown.
        OutputError: There are several pictures for one file, the file exists or has a different extension, or the
            folder cannot be written to.
    """
    path = Path(out)
    if kind is not None:
        one_of("the format", kind, tuple(KINDS))
    if path.is_dir() or path.suffix.lower() not in _PICTURES:
        return Target(check_folder(path), kind=kind or "png")
    named = kind_of(path)
    if named is None:
        raise OutputError(
            f"pictures are written as PNG, JPEG or WebP, but {path} ends in {path.suffix}; end it in .png, "
            ".jpg or .webp"
        )
    if kind not in (None, named):
        raise OutputError(f"the format is {kind}, but {path} ends in {path.suffix}; leave the format out")
    if pictures != 1:
        raise OutputError(
            f"{path} is a single file, but there will be {pictures} pictures; give a folder, or ask for one picture"
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
    """Save pictures as `0001.png` and so on, after the highest number in the folder; no file is overwritten.

    Args:
        samples: The pictures; each is saved as soon as it comes.
        folder: The folder, created if missing; or a `Target`.
        about: Metadata for every file, for example the hash of the model.
        seal: How pictures are signed: a `Seal`, True for the machine's own if `photomaker[provenance]` is installed, or
            False for no signature.

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
    """Save pictures as they come, and yield them with their files; see `save_samples`."""
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
    """The highest number of a picture in a folder, which is created if missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = [_NUMBERED.fullmatch(path.name) for path in folder.iterdir()]
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    return max((int(one[1]) for one in found if one), default=0)


def save_named(
    sample: Sample, path: Path, about: Mapping[str, str] | None = None, *, seal: Sealing = True
) -> Path:
    """Save a picture under a given name, whose extension sets the format; PNG without one.

    Args:
        sample: The picture.
        path: The file.
        about: Metadata for the file.
        seal: How it is signed; see `save_samples`.

    Raises:
        OutputError: The file exists, or cannot be written.
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
        except FileExistsError:  # another process has taken this number
            number += 1


def file_of(
    sample: Sample, kind: str = "png", about: Mapping[str, str] | None = None, *, seal: Sealing = True
) -> bytes:
    """The bytes of a picture's file, with its metadata, the mark of generated pictures, and a manifest.

    Args:
        sample: The picture.
        kind: One of `photomaker.metadata.KINDS`.
        about: Metadata for the file.
        seal: How it is signed; see `save_samples`.
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
    """Save a contact sheet of generated pictures as PNG.

    Args:
        picture: The sheet.
        path: The file.
        about: Metadata for the file.
        overwrite: Whether an existing file may be replaced.
        seal: How it is signed; see `save_samples`.

    Raises:
        FileExistsError: `overwrite` is false and the file exists.
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
    """The file, signed if possible; a picture is never lost because it cannot be signed."""
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
    """The metadata of a picture's file: all settings to make it again, and its likeness."""
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
    """The skipped work in words; None if nothing was skipped."""
    told = []
    if given.deep_every > 1:
        told.append(f"deep every {given.deep_every} from {given.deep_after:g}, outer {given.outer}")
    if given.words_after < 1:
        told.append(f"words to {given.words_after:g}")
    return ", ".join(told) or None


def _extras(extras: Extras) -> dict[str, str]:
    """The extras in words; pictures are identified by the hash of their pixels."""
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
    """A picture's fingerprint: the beginning of the SHA-256 of its size and RGB pixels."""
    rgb = image.convert("RGB")
    return hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).hexdigest()[:16]

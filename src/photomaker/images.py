"""Reading and writing pictures: untrusted photos, tensors, grids, and files with metadata.

A photo's header is checked before a pixel is decoded. Whatever its colour model, profile, depth, orientation or number
of frames, the result is one upright 8-bit sRGB picture.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from photomaker.colours import in_srgb
from photomaker.errors import OutputError, PhotoError, SettingsError
from photomaker.files import atomic
from photomaker.metadata import BY_MODEL, encoded
from photomaker.outside import ENCRYPTED

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 2**27  # 134 million: above the largest camera sensors in common use, 400 MB once decoded
MAX_BYTES = 2**28
MIN_SIDE = 16
"""Pixels; the least width and height of a photo."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"}
)
# A closed list: Pillow would otherwise try every reader it has, among them one that starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's readers raise on damaged or hostile data.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
    RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """A photo as it was read.

    Attributes:
        image: The upright picture, mode RGB, 8 bits a channel, sRGB whatever colour profile the file has.
        name: File name without its folder.
        sha256: Hash of the file's bytes.
        notes: What the user should know about the reading, for example that only the first frame was taken.
    """

    image: Image.Image
    name: str
    sha256: str
    notes: tuple[str, ...] = ()


def open_photo(path: str | os.PathLike[str]) -> Photo:
    """Open an untrusted photo.

    Args:
        path: A file in one of `FORMATS`.

    Returns:
        The photo, upright and RGB.

    Raises:
        PhotoError: The file is missing, too large, truncated, or no picture.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise PhotoError(f"there is no photo {path}; give a picture file or a folder of them")
        if path.stat().st_size > MAX_BYTES:
            raise PhotoError(f"{path} is larger than {MAX_BYTES >> 20} MB; give a smaller copy of the photo")
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    return read_photo(data, path.name)


def read_photo(data: bytes, name: str, most: int = MAX_PIXELS) -> Photo:
    """Decode the bytes of a photo; `open_photo` reads them from a file.

    Args:
        data: The whole file.
        name: Its name in messages.
        most: Pixels that it may have, at most `MAX_PIXELS`.

    Raises:
        PhotoError: The bytes are no picture, a damaged one, or one of too many pixels.
    """
    Image.init()
    with quiet_pillow():
        try:
            with Image.open(io.BytesIO(data), formats=_formats(data)) as picture:
                check_size(picture.size, name, most)
                notes = _frame_notes(picture, name)
                picture.load()
                rgb, more = _as_rgb(picture, name)
                image = _upright(rgb, picture)
        except Image.DecompressionBombError as error:
            raise PhotoError(
                f"{name} has more than {MAX_PIXELS // 10**6} million pixels; give a smaller copy of the photo"
            ) from error
        except _UNREADABLE as error:
            raise PhotoError(_unreadable_message(data, name)) from error
    return Photo(image, name, hashlib.sha256(data).hexdigest(), notes + more)


def picture_photo(picture: Image.Image, name: str) -> Photo:
    """A picture in memory as a photo, as `open_photo` gives one of a file.

    Args:
        picture: Of any mode, taken as it lies: its EXIF orientation may have been followed already.
        name: Its name in messages.

    Returns:
        The photo, without a hash.

    Raises:
        PhotoError: It has more than `MAX_PIXELS` or a side below `MIN_SIDE`, or values that are not finite.
    """
    check_size(picture.size, name)
    with quiet_pillow():
        rgb, notes = _as_rgb(picture, name)
    return Photo(rgb, name, "", notes)


_quiet_lock = threading.Lock()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Leave out what Pillow warns of: sizes, which are judged here, and damaged side information.

    `warnings.catch_warnings` puts back the whole list of filters, which threads that do so at the same time leave as it
    never was. This adds one filter, for Pillow alone, and takes that very one out again.
    """
    entry = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    with _quiet_lock:
        before = cast("list[object]", warnings.filters)
        before.insert(0, entry)
    try:
        yield
    finally:
        with _quiet_lock:
            now = cast("list[object]", warnings.filters)
            # somebody else may have put a copy of the list in its place meanwhile
            for filters in [before] if before is now else [before, now]:
                for place in reversed(range(len(filters))):
                    if filters[place] is entry:
                        del filters[place]


def _formats(data: bytes) -> tuple[str, ...]:
    """The formats to try: for what begins like a HEIC picture that one, which iPhones write, alone."""
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIF_BRANDS:
        return FORMATS
    from pi_heif import register_heif_opener

    register_heif_opener(thumbnails=False)
    return ("HEIF",)


def _unreadable_message(data: bytes, name: str) -> str:
    if not data:
        return f"{name} is an empty file; give another photo"
    if data.startswith(ENCRYPTED):
        return f"{name} is encrypted; run `photomaker identity decrypt` on it first, and give the file that it writes"
    if kind := _other_kind(data):
        return f"{name} is {kind}, not a picture; save what it shows as JPEG or PNG, or leave it out"
    return f"{name} is not a picture or is damaged; open and save it again as JPEG or PNG, or leave it out"


def _other_kind(data: bytes) -> str:
    """What else a file is by its first bytes; empty where that is unknown."""
    start = data[:512].lstrip().lower()
    still = data[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
    if start.startswith(b"%pdf"):
        return "a PDF"
    if data[4:8] == b"ftyp" and not still:
        return "a video"
    if data.startswith(b"\x1aE\xdf\xa3") or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return "a video"
    if data.startswith(b"PK\x03\x04"):
        return "an archive or a document"
    return "a web page" if start.startswith((b"<!doctype html", b"<html")) else ""


def check_size(size: tuple[int, int], name: str, most: int = MAX_PIXELS) -> None:
    """Compare a photo's width and height with what can be used.

    Raises:
        PhotoError: It has more than `most` pixels, or a side below `MIN_SIDE`.
    """
    width, height = size
    if width * height > most:
        raise PhotoError(
            f"{name} is {width} x {height} pixels, more than {most / 10**6:.3g} million; "
            "give a smaller copy of the photo"
        )
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            f"{name} is only {width} x {height} pixels; give a photo of {MIN_SIDE} x {MIN_SIDE} or more"
        )


def _frame_notes(picture: Image.Image, name: str) -> tuple[str, ...]:
    frames = getattr(picture, "n_frames", 1)
    # An MPO is what many phones write: a JPEG with a preview behind it, not an animation.
    if frames > 1 and picture.format != "MPO":
        return (f"{name} has {frames} frames; only the first is used",)
    return ()


def _upright(image: Image.Image, source: Image.Image) -> Image.Image:
    try:
        orientation = source.getexif().get(_ORIENTATION_TAG)
    except _UNREADABLE:  # damaged side information is no reason to refuse a good picture
        return image
    move = _ORIENTATIONS.get(orientation) if isinstance(orientation, int) else None
    return image if move is None else image.transpose(move)


def to_rgb(picture: Image.Image, name: str = "a photo") -> Image.Image:
    """The picture as 8-bit sRGB: deeper grey is scaled and not clipped, what is transparent lies on white.

    Args:
        picture: Of any mode; a colour profile in its `info` is followed.
        name: Its name in messages.

    Raises:
        PhotoError: It holds values that are not finite.
    """
    return _as_rgb(picture, name)[0]


def _as_rgb(picture: Image.Image, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """The same, and a note where its colour profile could not be followed."""
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _scaled_grey(picture, name)
    rgb, understood = in_srgb(picture, profile)
    if picture.has_transparency_data:
        rgb.putalpha(picture.convert("RGBA").getchannel("A"))
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
    rgb.info = {}
    note = f"the colour profile of {name} is damaged or for another kind of picture; it is ignored"
    return rgb, () if understood else (note,)


def _scaled_grey(picture: Image.Image, name: str) -> Image.Image:
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise PhotoError(f"{name} has values that are not finite; leave it out")
    if picture.mode == "F":
        top = max(1.0, float(values.max()))
        full = next((limit for limit in (1.0, 255.0, 65535.0) if top <= limit), top)
    else:
        full = max(65535.0, float(values.max()))
    return Image.fromarray(np.clip(values / full * 255 + 0.5, 0, 255).astype(np.uint8))


def list_photos(places: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The photo files in `places`, folders replaced by the pictures in them in the order of their names.

    Args:
        places: Files and folders; a file is taken whatever its name, in a folder only known suffixes count.

    Raises:
        PhotoError: Nothing was given, a place does not exist, or a folder holds no picture.
    """
    if not places:
        raise PhotoError("no photos were given; name a folder or some picture files of the person")
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found += _photos_in(place)
        elif place.is_file():
            found.append(place)
        else:
            raise PhotoError(f"there is no photo or folder {place}; check the path")
    return found


def _photos_in(folder: Path) -> list[Path]:
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise PhotoError(f"cannot read folder {folder}: {error.strerror}; check its permissions") from error
    shown = [path for path in inside if not path.name.startswith(".")]
    photos = [path for path in shown if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not photos:
        known = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise PhotoError(f"the folder {folder} has no pictures ({known}); put photos of the person in it")
    return photos


def to_tensor(image: Image.Image) -> torch.Tensor:
    """A picture as float32 [3, height, width] in 0..1."""
    import torch

    return torch.from_numpy(np.array(image.convert("RGB"), dtype=np.uint8)).permute(2, 0, 1).float() / 255


def to_image(tensor: torch.Tensor) -> Image.Image:
    """A float tensor [3, height, width] in 0..1 as a picture; values outside are clipped."""
    pixels = tensor.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.cpu().numpy())


def square(image: Image.Image, side: int) -> Image.Image:
    """The largest centred square of the picture, `side` pixels wide."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    enlarged = side >= edge
    return image.resize(
        (side, side),
        Image.Resampling.BICUBIC if enlarged else Image.Resampling.LANCZOS,
        box=(left, top, left + edge, top + edge),
    )


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface that comes with Pillow, so that nothing has to be installed."""
    return ImageFont.load_default(size=size)


def grid(images: Sequence[Image.Image], columns: int, gap: int = 4, ground: str = "white") -> Image.Image:
    """Pictures in rows of `columns`, every cell as large as the largest picture.

    Raises:
        ValueError: There is no picture, or `columns` is less than 1.
    """
    if not images or columns < 1:
        raise ValueError(f"a grid needs pictures and columns, got {len(images)} and {columns}")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width, height = max(i.width for i in images), max(i.height for i in images)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), ground)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        sheet.paste(image, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def image_grid(
    imgs: Sequence[Image.Image], rows: int, cols: int, size_after_resize: int | None = None
) -> Image.Image:
    """Pictures side by side without a gap, row by row, as the notebooks around diffusion models show them.

    Args:
        imgs: rows * cols pictures.
        rows: Rows.
        cols: Pictures in a row.
        size_after_resize: Side in pixels that every picture is brought to; None keeps the size of the first.

    Raises:
        SettingsError: There are not rows * cols pictures.
    """
    if len(imgs) != rows * cols or not imgs:
        raise SettingsError(
            f"there are {len(imgs)} pictures for {rows} rows of {cols}; give as many as places"
        )
    size = imgs[0].size if size_after_resize is None else (size_after_resize, size_after_resize)
    return grid([one if one.size == size else one.resize(size) for one in imgs], cols, gap=0)


def strip(images: Sequence[Image.Image], labels: Sequence[str], side: int = 128) -> Image.Image:
    """Pictures side by side, each with a line of text centred beneath it; text that is too long is shortened.

    Args:
        images: What to show, at least one.
        labels: One line for each picture.
        side: Width and height of a picture in pixels.

    Raises:
        ValueError: There are not as many labels as pictures.
    """
    cells = [labelled(image, label, side) for image, label in zip(images, labels, strict=True)]
    return grid(cells, columns=len(cells))


def labelled(image: Image.Image, label: str, side: int, text: int = 12) -> Image.Image:
    """A square picture with one line of text centred beneath it."""
    cell = Image.new("RGB", (side, side + int(1.7 * text)), "white")
    cell.paste(square(image, side), (0, 0))
    draw = ImageDraw.Draw(cell)
    face = font(text)
    line = shortened(label, side, face)
    draw.text((side / 2, side + text * 0.8), line, fill="#333333", font=face, anchor="mm")
    return cell


def shortened(line: str, width: float, face: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The line, cut and ended by an ellipsis where it is wider than `width` pixels."""
    if face.getlength(line) <= width:
        return line
    while line and face.getlength(line + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"


def save_png(
    image: Image.Image,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = True,
    source: str | None = BY_MODEL,
) -> Path:
    """Write a PNG atomically, with text chunks and, where it was generated, the mark that says so.

    Args:
        image: The picture.
        path: Where to write it.
        metadata: Text chunks: prompt, seed and so on.
        overwrite: Whether an existing file may be replaced.
        source: Digital source type, noted in a text chunk and in XMP as IPTC defines it; None notes nothing.

    Raises:
        FileExistsError: `overwrite` is false and the file exists.
        OutputError: The file cannot be written.
    """
    return write_whole(path, encoded(image, "png", metadata, source), overwrite)


def write_whole(path: str | os.PathLike[str], data: bytes, overwrite: bool = True) -> Path:
    """Write the bytes of a picture's file atomically.

    Raises:
        FileExistsError: `overwrite` is false and the file exists.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    try:
        with atomic(path, overwrite) as file:
            file.write(data)
    except FileExistsError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    return path

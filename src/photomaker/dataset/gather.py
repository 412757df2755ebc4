"""The first step: photos are downloaded, looked at, hashed and kept as they came.

A photo's bytes are kept where they are JPEG, PNG or WebP; other formats become PNG, which loses nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from photomaker.dataset.base import Dropped, ImageStep, Photo, Row
from photomaker.dataset.download import Downloader, Fetch, Unfetched, open_downloader
from photomaker.errors import PhotoError, SettingsError
from photomaker.images import FORMATS, MAX_BYTES, MAX_PIXELS, quiet_pillow, read_photo

if TYPE_CHECKING:
    from urllib.robotparser import RobotFileParser

SHORT = "short side"
HASH_SIDE = 8
_FINE = 32
_AHEAD = 4


@dataclass(frozen=True)
class Gather(ImageStep):
    """Settings of the first step.

    Attributes:
        short_side: Pixels that the shorter side of a photo must have, 16 or more; the paper asks for 512.
        most_bytes: Bytes that a file may have, 1 to 268435456.
        fetch: How photos are downloaded.

    Raises:
        SettingsError: A value is outside its range.
    """

    name: ClassVar[str] = "gather"
    pictures: ClassVar[str] = ""
    writes: ClassVar[bool] = True
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("source", pa.string()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("look", pa.string()),
        ]
    )

    short_side: int = 512
    most_bytes: int = 50_000_000
    fetch: Fetch = field(default_factory=Fetch)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.short_side < 16:  # noqa: PLR2004 - `photomaker.images.MIN_SIDE` in words for the reader
            raise SettingsError(f"gather.short_side is {self.short_side}; give 16 or more")
        if not 1 <= self.most_bytes <= MAX_BYTES:
            raise SettingsError(f"gather.most_bytes is {self.most_bytes}; give 1 to {MAX_BYTES}")

    def open(self) -> Callable[[Iterable[Photo]], Iterator[Photo | Dropped]]:
        """Take rows of the list without files, give photos; one look at robots.txt serves as long as this lives."""
        robots: dict[str, RobotFileParser] = {}
        return lambda photos: self._gather([photo.row for photo in photos], robots)

    def _gather(self, rows: list[Row], robots: dict[str, RobotFileParser]) -> Iterator[Photo | Dropped]:
        with asyncio.Runner() as loop, ThreadPoolExecutor(1) as thread:
            downloads = open_downloader(self.fetch, robots) if any(row["remote"] for row in rows) else None
            downloader = loop.run(downloads.__aenter__()) if downloads else None
            try:
                yield from self._in_order(rows, loop, thread, downloader)
            finally:
                if downloads:
                    loop.run(downloads.__aexit__(None, None, None))

    def _in_order(
        self, rows: list[Row], loop: asyncio.Runner, thread: ThreadPoolExecutor, downloader: Downloader | None
    ) -> Iterator[Photo | Dropped]:
        """One result for each row, in order; downloads run ahead of the row that is waited for, but not far."""
        ahead = _AHEAD * self.fetch.concurrency if downloader else 1
        coming: deque[asyncio.Task[Photo | Dropped]] = deque()
        try:
            for row in rows:
                coming.append(loop.get_loop().create_task(self._one(row, thread, downloader)))
                if len(coming) >= ahead:
                    yield loop.run(_wait(coming.popleft()))
            while coming:
                yield loop.run(_wait(coming.popleft()))
        finally:
            for task in coming:
                task.cancel()

    async def _one(
        self, row: Row, thread: ThreadPoolExecutor, downloader: Downloader | None
    ) -> Photo | Dropped:
        if not row["person"]:
            return Dropped(row, "no name")
        if row["twice"]:
            return Dropped(row, "listed twice")
        try:
            if row["remote"]:
                assert downloader is not None
                data = await downloader.get(row["place"], self.most_bytes)
            else:
                data = _from_disk(row, self.most_bytes)
        except Unfetched as end:
            return Dropped(row, end.reason, end.detail)
        return await asyncio.get_running_loop().run_in_executor(thread, self._look, row, data)

    def _look(self, row: Row, data: bytes) -> Photo | Dropped:
        """Judge a file by its header first, and decode it only if that is in order."""
        try:
            self._check_header(data)
            image = read_photo(data, row["source"]).image
        except Unfetched as end:
            return Dropped(row, end.reason, end.detail, data if end.reason == SHORT else None)
        except PhotoError:
            return Dropped(row, "corrupt", f"{len(data)} bytes")
        columns = {
            "key": row["key"], "person": row["person"], "shard": row["shard"], "source": row["source"],
            "sha256": hashlib.sha256(data).hexdigest(), "width": image.width, "height": image.height,
            "look": f"{look(image):016x}",
        }  # fmt: skip
        return Photo(columns, {"image": data if extension(data) else _png(image)})

    def _check_header(self, data: bytes) -> None:
        try:
            with quiet_pillow(), Image.open(io.BytesIO(data), formats=FORMATS) as header:
                width, height = header.size
        except UnidentifiedImageError as error:
            raise Unfetched("not an image", f"{len(data)} bytes of something else") from error
        except Image.DecompressionBombError as error:
            raise Unfetched("too many pixels", f"more than {MAX_PIXELS}") from error
        except Exception as error:
            raise Unfetched("corrupt", type(error).__name__) from error
        if width * height > MAX_PIXELS:
            raise Unfetched("too many pixels", f"{width} x {height}")
        if min(width, height) < self.short_side:
            raise Unfetched(SHORT, f"{width} x {height} pixels")


async def _wait(task: asyncio.Task[Photo | Dropped]) -> Photo | Dropped:
    return await task


def _from_disk(row: Row, most: int) -> bytes:
    path = Path(row["place"])
    try:
        size = path.stat().st_size if row["size"] is None else row["size"]
        if size > most:
            raise Unfetched("too large", f"{size} bytes")
        with path.open("rb") as file:
            file.seek(row["offset"] or 0)
            return file.read(size)
    except OSError as error:
        raise Unfetched("unreadable", error.strerror or type(error).__name__) from error


def extension(data: bytes) -> str:
    """The ending of a picture that can be kept as it is, by its first bytes: jpg, png, webp, or empty."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else ""


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def look(image: Image.Image) -> int:
    """64 bits that stay nearly the same when a picture is scaled, recompressed or slightly toned.

    The picture is brought to 32 x 32 grey values; of its cosine transform, the lowest 8 x 8 frequencies are compared
    with their median. Pictures are distinguished by the number of bits in which they differ.

    Source: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    grey = image.convert("L").resize((_FINE, _FINE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    values = np.asarray(grey, dtype=np.float64)
    points = np.arange(_FINE)
    waves = np.cos(np.pi / _FINE * np.outer(points[: HASH_SIDE + 1], points + 0.5))
    low = (waves @ values @ waves.T)[1:, 1:].ravel()
    # Rounded, so that a frequency that is absent never counts by the last bit of a sum.
    bits = np.round(low, 3) > np.round(np.median(low), 3)
    return int("".join("1" if bit else "0" for bit in bits), 2)

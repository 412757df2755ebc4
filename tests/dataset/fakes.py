"""Tiny steps with the columns of the real ones, so that the machinery can be tested without models."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from photomaker.dataset.base import Dropped, ImageStep, Photo, TableStep
from photomaker.dataset.dedupe import Dedupe
from photomaker.dataset.executors import Executor, Hand, Run
from photomaker.dataset.gather import Gather
from photomaker.dataset.listing import Input
from photomaker.dataset.runner import Shard


@dataclass(frozen=True)
class Bright(ImageStep):
    """Drops dark photos; stands for detection."""

    name = "bright"
    pictures = "gather"
    columns = pa.schema([("box", pa.list_(pa.float32())), ("landmarks", pa.list_(pa.float32())),
                         ("embedding", pa.list_(pa.float32()))])  # fmt: skip
    least: float = 20.0
    fault: str = ""

    def open(self):
        def step(photos):
            for photo in photos:
                pixels = np.asarray(photo.image(), dtype=np.float32)
                if self.fault == "raise" and photo.row["key"].endswith("3"):
                    raise KeyError("a faulty step")
                if self.fault == "die":
                    import os

                    os._exit(9)
                if pixels.mean() < self.least:
                    yield Dropped(photo.row, "no face", f"brightness {pixels.mean():.1f}")
                else:
                    columns = {"box": [1.5, 2.0, 9.0, 10.0], "landmarks": [0.5] * 10,
                               "embedding": (pixels.mean((0, 1)) / 255).tolist()}  # fmt: skip
                    yield Photo({**photo.row, **columns})

        return step


@dataclass(frozen=True)
class Alike(TableStep):
    """Drops photos far from the person's mean colour; stands for verification."""

    name = "alike"
    columns = pa.schema([("distance", pa.float32())])
    most: float = 0.3

    def open(self):
        def step(rows):
            colours = np.array([row["embedding"] for row in rows])
            for row, far in zip(rows, np.abs(colours - np.median(colours, 0)).max(1), strict=True):
                if far > self.most:
                    yield Dropped(row, "another person", f"{far:.2f}")
                else:
                    yield {**row, "distance": float(far)}

        return step


@dataclass(frozen=True)
class Cut(ImageStep):
    """Writes a crop and a mask; stands for segmentation."""

    name = "cut"
    pictures = "gather"
    writes = True
    columns = pa.schema([("width", pa.int32()), ("height", pa.int32())])
    side: int = 24

    def open(self):
        def step(photos):
            for photo in photos:
                image, files = photo.image().resize((self.side, self.side)), {}
                for name, one in (
                    ("image", image),
                    ("mask", image.convert("L").point(lambda v: 255 * (v > 99))),
                ):
                    buffer = io.BytesIO()
                    one.save(buffer, "PNG")
                    files[name] = buffer.getvalue()
                yield Photo({**photo.row, "width": self.side, "height": self.side}, files)

        return step


@dataclass(frozen=True)
class Say(ImageStep):
    """Writes a caption of the crop; stands for captions and their marks."""

    name = "say"
    pictures = "cut"
    columns = pa.schema([("caption", pa.string()), ("class_word", pa.string()),
                         ("class_start", pa.int32()), ("class_end", pa.int32())])  # fmt: skip

    def open(self):
        def step(photos):
            for photo in photos:
                mean = int(np.asarray(photo.image()).mean())
                assert photo.image().width == photo.row["width"]
                assert photo.files["mask"]
                columns = {
                    "caption": f"a man of {mean}",
                    "class_word": "man",
                    "class_start": 2,
                    "class_end": 5,
                }
                yield Photo({**photo.row, **columns})

        return step


class Inline(Executor):
    """Does everything in this process, which saves the seconds that one takes to start."""

    workers = 2

    def ready(self, count):
        pass

    def run(self, work, units, count):
        hand = Hand()
        for unit in reversed(units):
            outcome = hand.do(pickle.dumps(work), unit)
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome

    def __exit__(self, *error):
        pass


@dataclass(frozen=True)
class InlineRun(Run):
    """Settings that lead to it."""

    def open(self):
        return Inline()


@dataclass(frozen=True)
class FakeSettings:
    """A build of these steps."""

    input: Input
    out: Path
    unit: int = 6
    gather: Gather = field(default_factory=lambda: Gather(short_side=32))
    dedupe: Dedupe = field(default_factory=Dedupe)
    bright: Bright = field(default_factory=Bright)
    alike: Alike = field(default_factory=Alike)
    cut: Cut = field(default_factory=Cut)
    say: Say = field(default_factory=Say)
    shard: Shard = field(default_factory=lambda: Shard(size=5))
    run: Run = field(default_factory=InlineRun)

    def steps(self):
        return (self.gather, self.dedupe, self.bright, self.alike, self.cut, self.say)


def photo(seed: int, size=(96, 80), level: float = 120.0) -> Image.Image:
    """A smooth picture that no other seed resembles."""
    rng = np.random.default_rng(seed)
    coarse = np.clip(rng.normal(level, 50 if level > 40 else 2, (6, 6, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def album(root: Path, people=("ada", "ben", "cleo"), each: int = 5) -> Path:
    """Folders of people with good photos, and for the first of them one of each fault."""
    for number, name in enumerate(people):
        (root / name).mkdir(parents=True)
        for view in range(each):
            form = ("JPEG", "PNG", "WEBP")[view % 3]
            suffix = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[form]
            data = encoded(photo(100 * number + view), form)
            (root / name / f"{view}.{suffix}").write_bytes(data)
    first = root / people[0]
    (first / "again.jpg").write_bytes((first / "0.jpg").read_bytes())
    (first / "smaller.jpg").write_bytes(encoded(photo(1, (84, 70)), "JPEG", quality=90))
    (first / "dark.png").write_bytes(encoded(photo(77, level=4.0)))
    (first / "tiny.png").write_bytes(encoded(photo(78, (80, 20))))
    (first / "cut.jpg").write_bytes((first / "0.jpg").read_bytes()[:400])
    (first / "text.png").write_bytes(b"no picture at all")
    (first / "notes.txt").write_text("left out")
    (root / people[-1] / "old.bmp").write_bytes(encoded(photo(79), "BMP"))
    (root / "dora").mkdir()
    (root / "dora" / "0.png").write_bytes(encoded(photo(80)))
    (root / "empty").mkdir()
    return root


def files_of(out: Path) -> dict[str, bytes]:
    """Everything of a build that must not depend on how it was run."""
    timed = {"log.jsonl", "dataset.json", ".lock"}
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and path.name not in timed
        and not path.relative_to(out).as_posix().startswith("report")
    }

"""Mutated files at every reader: nothing but our errors, no hang, no code, nothing written elsewhere.

make fuzz                                      # 10,000 inputs
python -m tests.fuzz.run --count 500 --only identity --seed 7
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.fuzz.mutate import mutated
from tests.fuzz.readers import Reader, readers

from photomaker.errors import PhotoMakerError

SECONDS = 3.0
BYTES = 2 << 30


class Hang(BaseException):
    """Reading took more than `SECONDS`."""


@dataclass(frozen=True)
class Fault:
    """What must not be.

    Attributes:
        reader: Name of the reader.
        seed: Of the mutation; with the reader's name it makes the input again.
        what: The error and where it came from.
    """

    reader: str
    seed: int
    what: str

    def __str__(self) -> str:
        return f"{self.reader}, --only '{self.reader}' --seed {self.seed} --count 1: {self.what}"


def run(count: int, seed: int = 0, only: str = "") -> tuple[Counter[str], list[Fault]]:
    """Try mutated files.

    Args:
        count: Inputs in all, spread over the readers.
        seed: Of the first mutation.
        only: Name of the one reader to try.

    Returns:
        How many inputs were read and how many refused, by reader, and the faults.
    """
    counts: Counter[str] = Counter()
    faults: list[Fault] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "good").mkdir()
        (root / "work").mkdir()
        marker = root / "code-was-run"
        table = [one for one in readers(root / "good", marker) if only in ("", one.name)]
        before = _files(root)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in range(count):
                reader = table[number % len(table)]
                fault = _tried(reader, seed + number // len(table), root / "work", counts)
                if fault:
                    faults.append(Fault(reader.name, seed + number // len(table), fault))
        if marker.exists():
            faults.append(Fault("a pickle", seed, "code in a file was run"))
        outside = _files(root) - before
        if outside:
            faults.append(
                Fault("some reader", seed, f"{sorted(outside)} were written outside the output folder")
            )
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > BYTES:
        faults.append(Fault("some reader", seed, "memory went above 2 GiB"))
    return counts, faults


def _files(root: Path) -> set[str]:
    return {
        str(path.relative_to(root)) for path in root.rglob("*") if "work" not in path.relative_to(root).parts
    }


def _tried(reader: Reader, seed: int, work: Path, counts: Counter[str]) -> str:
    """The fault of one input, or nothing."""
    rng = random.Random(f"{reader.name} {seed}")
    data = mutated(rng.choice(reader.seeds), rng)
    path = work / f"input{reader.suffix}"
    path.write_bytes(data)
    try:
        with _limited():
            reader.read(path)
    except PhotoMakerError as error:
        counts[f"{reader.name}: refused"] += 1
        return "" if "\n" not in str(error) else f"the message has several lines: {error}"
    except Hang:
        return f"it took more than {SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - any other is a fault
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:150]} ({where.filename}:{where.lineno})"
    counts[f"{reader.name}: read"] += 1
    return ""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    given = parser.parse_args(words)
    start = time.perf_counter()
    counts, faults = run(given.count, given.seed, given.only)
    for name, number in sorted(counts.items()):
        print(f"{number:7d}  {name}")
    for fault in faults[:50]:
        print(f"FAULT {fault}")
    seconds = time.perf_counter() - start
    print(f"{sum(counts.values()) + len(faults)} inputs in {seconds:.0f} s, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

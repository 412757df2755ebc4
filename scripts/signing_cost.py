"""What signing adds to saving a picture, in milliseconds of the CPU and bytes.

    python scripts/signing_cost.py --rounds 15

Signed and unsigned files are made in turn; the least of each is told.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import numpy as np
from PIL import Image

from photomaker.metadata import KINDS
from photomaker.studio.desk.folders import HOME
from photomaker.studio.pictures.saving import file_of
from photomaker.studio.provenance.manifest import Seal
from photomaker.types import Request, Sample

SIDES = (128, 1024)


def timed(sample: Sample, kind: str, seal: Seal | bool) -> tuple[float, int]:
    """Milliseconds that a file takes, and its bytes."""
    start = time.process_time()
    data = file_of(sample, kind, {"model": "small", "model_hash": "0" * 16}, seal=seal)
    return 1000 * (time.process_time() - start), len(data)


def smooth(side: int) -> Image.Image:
    """A picture without noise, like one that was drawn."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as home:
        os.environ[HOME] = home
        start = time.perf_counter()
        seal = Seal.open()
        print(
            f"making a certificate, importing, trying it: {1000 * (time.perf_counter() - start):.0f} ms once"
        )
        for side in SIDES:
            sample = Sample(smooth(side), Request("a photo of a woman img in the snow"))
            for kind in KINDS:
                both = [(timed(sample, kind, False), timed(sample, kind, seal)) for _ in range(rounds)]
                plain, signed = (min(one[place] for one in both) for place in (0, 1))
                print(
                    f"{side} x {side} {kind}: {plain[0]:.1f} ms unsigned, {signed[0]:.1f} ms signed; "
                    f"{signed[1] - plain[1]} bytes more"
                )


if __name__ == "__main__":
    main()

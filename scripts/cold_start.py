"""How long the first picture takes in a fresh process, over what importing plain diffusers' SDXL pipeline takes.

    python scripts/cold_start.py --rounds 5

Both are run in turn, so that other work on the machine meets both; the least of each is compared, by the clock and in
seconds of the CPU.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLAIN = [sys.executable, "-c", "from diffusers import StableDiffusionXLPipeline"]
FIRST = [
    sys.executable, "-m", "photomaker.apps.cli", "generate", "--photos", str(ROOT / "examples" / "ada"),
    "--prompt", "a photo of a woman img in the snow", "-n", "1",
]  # fmt: skip


def timed(words: list[str]) -> tuple[float, float]:
    """Seconds by the clock, and seconds of the CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(
        words,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    plain, first = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            plain.append(timed(PLAIN))
            first.append(timed([*FIRST, "--out", folder]))
    for name, runs in (("import of plain diffusers", plain), ("command to first picture", first)):
        print(
            f"{name:26} {min(wall for wall, _ in runs):6.2f} s, {min(cpu for _, cpu in runs):6.2f} s of CPU"
        )
    ratios = [min(run[kind] for run in first) / min(run[kind] for run in plain) for kind in (0, 1)]
    print(f"ratio                      {ratios[0]:6.2f}    {ratios[1]:6.2f}")


if __name__ == "__main__":
    main()

"""What a second replica brings: a desk's pictures a second with one and with two, by the bundled model.

python scripts/load_replicas.py --pictures 64

Each has drawn once before the clock runs, so that no start of Ray or of a model is counted. The rounds take turns. Two
cores must be free.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from photomaker.studio.desk.desk import Desk

ROOT = Path(__file__).parents[1]
os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT / "src"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=64, help="of each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    paces: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(asked.rounds):
        for count, found in paces.items():
            found.append(pace(count, asked.pictures, asked.steps))
            print(f"{count} replica(s): {found[-1]:.3f} pictures a second", flush=True)
    print(f"two against one: {mean(paces[2]) / mean(paces[1]):.2f} times")


def pace(count: int, pictures: int, steps: int) -> float:
    """Pictures a second of a desk with so many replicas."""
    from photomaker.studio.desk.desk import Desk
    from photomaker.studio.desk.limits import Limits
    from photomaker.studio.desk.records import Upload
    from photomaker.studio.desk.replicas import Replicas
    from photomaker.studio.engine import Engine

    options = {"image_encoder": False}
    limits = Limits(pictures=max(pictures, 8 * count))
    with (
        tempfile.TemporaryDirectory() as folder,
        Replicas(count, options, gpus=0) as replicas,
        Desk(Engine.open(), folder, limits, drawers=replicas.drawers) as desk,
    ):
        photos = sorted((ROOT / "examples" / "ada").glob("*.png"))
        ada = desk.add_person("me", [Upload(one.name, one) for one in photos]).id
        drawn(desk, ada, 8 * count, 2)
        began = time.perf_counter()
        drawn(desk, ada, pictures, steps)
        return pictures / (time.perf_counter() - began)


def drawn(desk: Desk, who: str, pictures: int, steps: int) -> None:
    """Draw a job and wait for its end."""
    from photomaker.studio.orders.plain import PlainOrder

    job = desk.submit(
        "me", PlainOrder((who,), ("a photo of a woman img in the snow",), n=pictures, steps=steps)
    )
    end = list(desk.events("me", job.id))[-1]
    assert getattr(end, "state", "") == "done", end


if __name__ == "__main__":
    main()

"""Draw a dataset of synthetic people: portraits, or with --composed other formats, distances and pairs of them.

python scripts/train_small/world.py --out data/people --people 7200 --views 10
python scripts/train_small/world.py --out data/composed --people 7200 --views 10 --composed
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from photomaker.synthetic.composed import ComposedPlan, write_compositions
from photomaker.synthetic.dataset import WorldPlan, write_world

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=int, default=0, help="person index of the first person")
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--composed", action="store_true", help="compositions in the place of portraits")
    given = parser.parse_args()
    if given.composed:
        write_compositions(given.out, ComposedPlan(given.start, given.people, given.views), given.workers)
    else:
        write_world(given.out, WorldPlan(given.start, given.people, given.views), given.workers)

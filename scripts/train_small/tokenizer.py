"""Train the two tokenizers on captions of the synthetic people.

python scripts/train_small/tokenizer.py --data DATA --out OUT
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.training.data.dataset import People
from photomaker.training.data.tokenizer import build_tokenizers, save_tokenizers
from train_small.common import open_people


def captions(data: People, count: int, seed: int) -> Iterator[str]:
    """Captions of rows drawn at random, half of them with every trait."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield data.caption(int(rng.integers(len(data.images))), rng, float(rng.integers(2)))


def main(argv: list[str] | None = None) -> int:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="gets export/tokenizer and export/tokenizer_2"
    )
    parser.add_argument("--captions", type=int, default=50_000)
    parser.add_argument("--vocabulary", type=int, default=1536, help="largest vocabulary")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    made = build_tokenizers(captions(open_people(args.data), args.captions, args.seed), args.vocabulary)
    save_tokenizers(made, args.out / "export")
    logging.info("vocabulary of %d tokens in %s", len(made[0]), args.out / "export")
    return 0


if __name__ == "__main__":
    sys.exit(main())

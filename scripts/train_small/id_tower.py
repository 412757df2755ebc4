"""Pretrain the ID encoder's image tower.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 scripts/train_small/id_tower.py --data DATA --out OUT --steps 6000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.training.data import People
from photomaker.training.id_tower import TowerRecipe, TowerSettings, TowerSizes, tower_config
from photomaker.training.photos import PhotoSettings
from train_small.common import run_stage, training_parser


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = training_parser("Pretrain the ID encoder's image tower.", steps=6_000, batch=32)
    options.add_argument("--width", type=int, default=TowerSizes.width)
    options.add_argument("--layers", type=int, default=TowerSizes.layers)
    options.add_argument("--patch", type=int, default=TowerSizes.patch)
    options.add_argument("--mlp", type=int, default=TowerSizes.mlp)
    options.add_argument("--lr", type=float, default=TowerSettings.lr)
    options.add_argument("--names", type=float, default=TowerSettings.names, help="weight of the margin loss")
    options.add_argument(
        "--factors", type=float, default=TowerSettings.factors, help="weight of the regression"
    )
    options.add_argument(
        "--crop", type=float, default=0.0, help="ID photos: side in face boxes, 0 = whole picture"
    )
    return options


def build(args: argparse.Namespace, data: People) -> TowerRecipe:
    """The recipe."""
    sizes = TowerSizes(args.width, args.layers, args.patch, args.mlp)
    settings = TowerSettings(
        lr=args.lr, names=args.names, factors=args.factors, photos=PhotoSettings(crop=args.crop)
    )
    return TowerRecipe(data, tower_config(sizes, (96, 160)), settings)


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build))

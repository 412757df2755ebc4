r"""Pretrain the ID encoder's image tower.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 scripts/train_small/id_tower.py --data DATA --out OUT --steps 6000 \
    --teacher RECOGNISER/export/recogniser.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.errors import SettingsError
from photomaker.faces.base import square_around
from photomaker.faces.crops import SIDE, tensor_crops
from photomaker.faces.networks import ConvRecogniser, centred, load_network
from photomaker.training.data.dataset import People
from photomaker.training.data.photos import PhotoSettings
from photomaker.training.recipes.id_tower import (
    Lesson,
    Teacher,
    TowerRecipe,
    TowerSettings,
    TowerSizes,
    tower_config,
)
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
    options.add_argument(
        "--imitation", type=float, default=TowerSettings.imitation, help="weight of the recogniser"
    )
    options.add_argument("--teacher", type=Path, help="file of a trained recogniser to imitate")
    return options


def recogniser_teacher(path: Path, data: People) -> Teacher:
    """The lessons of a convolutional recogniser: its last feature map and its embedding."""
    network = load_network(path, ConvRecogniser).float().eval()
    assert isinstance(network, ConvRecogniser)

    @torch.no_grad()
    def teach(rows: np.ndarray) -> Lesson:
        squares = np.array([square_around(tuple(box), SIDE) for box in data.boxes[rows]], dtype=np.float32)
        pixels = torch.from_numpy(np.ascontiguousarray(data.images[rows].transpose(0, 3, 1, 2))).float() / 255
        crops = tensor_crops(pixels, torch.from_numpy(squares), network.config.size)
        maps = network.trunk(centred(crops)).float()
        embeddings = functional.normalize(network.project(network.weigh(maps)).float(), dim=-1)
        return Lesson(maps, embeddings, torch.from_numpy(squares))

    return teach


def build(args: argparse.Namespace, data: People) -> TowerRecipe:
    """The recipe."""
    sizes = TowerSizes(args.width, args.layers, args.patch, args.mlp)
    if args.crop and args.teacher:
        raise SettingsError("--teacher needs whole pictures; leave --crop away")
    settings = TowerSettings(
        lr=args.lr,
        names=args.names,
        factors=args.factors,
        imitation=args.imitation,
        photos=PhotoSettings(crop=args.crop, shift=0 if args.teacher else PhotoSettings.shift),
    )
    teacher = recogniser_teacher(args.teacher, data) if args.teacher else None
    return TowerRecipe(data, tower_config(sizes, (96, 160)), settings, teacher=teacher)


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build))

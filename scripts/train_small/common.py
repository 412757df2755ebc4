"""What the training scripts share: their command line, and how a stage is run."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch

from photomaker.errors import PhotoMakerError
from photomaker.training.data import People
from photomaker.training.loop import Recipe, TrainSettings, export_checkpoint, train

Build = Callable[[argparse.Namespace, People], Recipe]


def open_people(folder: str) -> People:
    """The dataset that `photomaker.synthetic.dataset.write_world` wrote."""
    from photomaker.synthetic.dataset import WorldDataset

    return WorldDataset.open(Path(folder))


def training_parser(
    description: str, steps: int, batch: int, precision: str = "auto"
) -> argparse.ArgumentParser:
    """The options that every stage has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the synthetic training people")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of this training; the result is in out/export"
    )
    parser.add_argument("--steps", type=int, default=steps, help="optimiser steps in all")
    parser.add_argument("--batch", type=int, default=batch, help="rows a step and process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warmup", type=int, default=200, help="steps over which the learning rate rises")
    parser.add_argument("--schedule", default="cosine", choices=["cosine", "constant", "linear_decay"])
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights, 0 = off")
    parser.add_argument("--clip", type=float, default=1.0, help="largest gradient norm, 0 = off")
    parser.add_argument("--precision", default=precision, choices=["auto", "bf16", "fp32"])
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--keep", type=int, default=2, help="checkpoints kept")
    parser.add_argument("--fresh", action="store_true", help="start again instead of going on")
    parser.add_argument(
        "--export-only", action="store_true", help="export from the newest checkpoint, train nothing"
    )
    return parser


def train_settings(args: argparse.Namespace) -> TrainSettings:
    """The loop's settings from the options."""
    return TrainSettings(
        steps=args.steps, batch_size=args.batch, seed=args.seed, warmup=args.warmup, schedule=args.schedule,
        ema_decay=args.ema, clip=args.clip, precision=args.precision, save_every=args.save_every,
        log_every=args.log_every, keep=args.keep,
    )  # fmt: skip


def process_place() -> tuple[int, int]:
    """Number of this process and of all, as torchrun tells them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def run_stage(parser: argparse.ArgumentParser, build: Build, argv: list[str] | None = None) -> int:
    """Parse, build the recipe, train or export.

    Args:
        parser: From `training_parser`, with the stage's own options.
        build: Makes the recipe from the options and the opened data.
        argv: Options; None takes the command line's.

    Returns:
        0; 2 after a mistake in the options or the data.
    """
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log = logging.getLogger("train")
    if not torch.cuda.is_available():
        # Denormal numbers, which appear in optimiser states, are many times slower on a CPU.
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    try:
        recipe = build(args, open_people(args.data))
        count = {name: sum(p.numel() for p in m.parameters()) for name, m in recipe.modules().items()}
        if process_place()[0] == 0:
            log.info("%s: %d rows, parameters %s", recipe.name, len(recipe.rows), count)
        if args.export_only:
            log.info("exported to %s", export_checkpoint(recipe, train_settings(args), args.out))
        else:
            figures = train(recipe, train_settings(args), args.out, resume=not args.fresh)
            if process_place()[0] == 0:
                log.info("%s: %s", recipe.name, figures)
    except PhotoMakerError as error:
        log.error("%s", error)
        return 2
    return 0

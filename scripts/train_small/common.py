"""What the training scripts share: their command line, and how a stage is run."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from photomaker.errors import PhotoMakerError
from photomaker.training.data.dataset import People
from photomaker.training.running.loop import export_checkpoint, train
from photomaker.training.running.recipe import Recipe
from photomaker.training.running.settings import TrainSettings

Build = Callable[[argparse.Namespace, Any], Recipe]
Measure = Callable[[argparse.Namespace, Any], dict[str, float]]
"""Options and the opened data to figures."""


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
    parser.add_argument(
        "--batch", "--batch-size", dest="batch", type=int, default=batch, help="rows a step and process"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--warmup",
        type=int,
        default=200,
        help="steps over which the learning rate rises; None is a tenth of all",
    )
    parser.add_argument("--schedule", default="cosine", choices=["cosine", "constant", "linear_decay"])
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights, 0 = off")
    parser.add_argument("--clip", type=float, default=1.0, help="largest gradient norm, 0 = off")
    parser.add_argument("--precision", default=precision, choices=["auto", "bf16", "fp32"])
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--keep", type=int, default=2, help="checkpoints kept")
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        help="time for the steps, which then are as many as fit; 0 = no limit",
    )
    parser.add_argument("--fresh", action="store_true", help="start again instead of going on")
    parser.add_argument(
        "--export-only", action="store_true", help="export from the newest checkpoint, train nothing"
    )
    return parser


def network_parser(
    description: str, steps: int, batch: int = 64, warmup: int = 300
) -> argparse.ArgumentParser:
    """The options that every judging network has: those of a stage, the people, and settings of their own.

    Args:
        description: What is trained.
        steps: Optimiser steps in all.
        batch: Rows a step and process.
        warmup: Most steps over which the learning rate rises; a tenth of all where that is less.
    """
    parser = training_parser(description, steps, batch)
    parser.add_argument("--people", required=True, help="range of people A:B to train on")
    parser.add_argument("--val-people", required=True, help="range of people A:B to measure on")
    parser.add_argument("--val-data", help="dataset to measure on; the same by default")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.set_defaults(ema=0.998, clip=5.0, save_every=1000, warmup=None, most_warmup=warmup)
    return parser


def held_out(args: argparse.Namespace, data: Any) -> Any:  # noqa: ANN401 - a synthetic dataset
    """What is measured on: the data of `--val-data`, or the same where there is none."""
    return data if args.val_data is None else open_people(args.val_data)


def train_settings(args: argparse.Namespace) -> TrainSettings:
    """The loop's settings from the options."""
    warmup = min(args.most_warmup, args.steps // 10) if args.warmup is None else args.warmup
    return TrainSettings(
        steps=args.steps, batch_size=args.batch, seed=args.seed, warmup=warmup, schedule=args.schedule,
        ema_decay=args.ema, clip=args.clip, precision=args.precision, save_every=args.save_every,
        log_every=args.log_every, keep=args.keep, seconds=args.seconds,
    )  # fmt: skip


def process_place() -> tuple[int, int]:
    """Number of this process and of all, as torchrun tells them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def run_stage(
    parser: argparse.ArgumentParser,
    build: Build,
    argv: list[str] | None = None,
    measure: Measure | None = None,
) -> int:
    """Parse, build the recipe, train or export.

    Args:
        parser: From `training_parser`, with the stage's own options.
        build: Makes the recipe from the options and the opened data.
        argv: Options; None takes the command line's.
        measure: Gives figures of the exported result, which are printed as JSON once the training is finished.

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
        data = open_people(args.data)
        recipe = build(args, data)
        count = {name: sum(p.numel() for p in m.parameters()) for name, m in recipe.modules().items()}
        if process_place()[0] == 0:
            log.info("%s: %d rows, parameters %s", recipe.name, len(recipe.rows), count)
        if args.export_only:
            log.info("exported to %s", export_checkpoint(recipe, train_settings(args), args.out))
        else:
            figures = train(recipe, train_settings(args), args.out, resume=not args.fresh)
            if process_place()[0] == 0:
                log.info("%s: %s", recipe.name, figures)
                if measure is not None and figures["finished"]:
                    print(json.dumps(measure(args, data), indent=1))
    except PhotoMakerError as error:
        log.error("%s", error)
        return 2
    return 0

"""Train the bundled base: text encoders and UNet on latents and captions.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 scripts/train_small/base.py --data DATA --out OUT \
    --autoencoder AE/export --tokenizers TOK/export --steps 30000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.errors import SettingsError
from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.synthetic.composed import ComposedDataset
from photomaker.training.data.dataset import People
from photomaker.training.data.latents import cached_latents
from photomaker.training.data.mixture import Sized
from photomaker.training.data.tokenizer import load_tokenizers
from photomaker.training.losses.diffusion import DiffusionSettings
from photomaker.training.recipes.base import BaseParts, BaseRecipe, BaseSettings, BaseSizes, kept_ids
from train_small.common import process_place, run_stage, training_parser


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = training_parser("Train the bundled base.", steps=30_000, batch=24)
    options.add_argument(
        "--autoencoder",
        type=Path,
        help="export folder of the autoencoder; with --init in the place of its own",
    )
    options.add_argument("--tokenizers", type=Path, help="export folder of the tokenizers")
    options.add_argument(
        "--init", type=Path, help="diffusers folder to go on from, in the place of both; give another --seed"
    )
    options.add_argument("--composed", type=Path, help="folder of compositions to train on as well")
    options.add_argument(
        "--composed-times", type=int, default=2, help="how often each composition counts beside a portrait"
    )
    options.add_argument("--latents", type=Path, help="where latents are kept; default: out/latents")
    options.add_argument("--blocks", default="96,128", help="UNet channels at 16 x 16, 8 x 8")
    options.add_argument("--layers", type=int, default=1, help="residual blocks a resolution")
    options.add_argument("--text", default="96,160", help="widths of the text encoders")
    options.add_argument("--lr", type=float, default=BaseSettings.lr)
    options.add_argument("--text-lr", type=float, default=BaseSettings.text_lr)
    options.add_argument("--face-weight", type=float, default=DiffusionSettings.face, help="1 = off")
    options.add_argument("--min-snr", type=float, default=DiffusionSettings.min_snr, help="0 = off")
    options.add_argument(
        "--late", type=float, default=DiffusionSettings.late, help="above 1 = more timesteps of little noise"
    )
    options.add_argument("--no-zero-snr", action="store_true", help="keep SDXL's schedule as it is")
    options.add_argument(
        "--variants",
        type=int,
        default=0,
        help="captions of a row that are made beforehand, for a GPU; 0 = none",
    )
    options.add_argument("--workers", type=int, default=1, help="processes that make them")
    options.add_argument("--plain-captions", type=float, default=BaseSettings.plain_captions)
    return options


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def build(args: argparse.Namespace, data: People) -> BaseRecipe:
    """The recipe; latents are computed first where they are missing."""
    diffusion = DiffusionSettings(
        zero_snr=not args.no_zero_snr, min_snr=args.min_snr, face=args.face_weight, late=args.late
    )
    settings = BaseSettings(
        lr=args.lr, text_lr=args.text_lr, plain_captions=args.plain_captions, diffusion=diffusion
    )
    if not (args.init or (args.autoencoder and args.tokenizers)):
        raise SettingsError("give --autoencoder and --tokenizers, or --init with a base to go on from")
    autoencoder = (
        SmallAutoencoder.from_pretrained(args.autoencoder, dtype=torch.float32) if args.autoencoder else None
    )
    if args.init:
        parts = BaseParts.load(args.init)
        parts.autoencoder = autoencoder or parts.autoencoder
    else:
        assert autoencoder is not None
        first, second = _numbers(args.text)
        sizes = BaseSizes(blocks=_numbers(args.blocks), layers=args.layers, text=(first, second))
        parts = BaseParts.new(autoencoder, load_tokenizers(args.tokenizers), sizes, args.seed)
    folder = args.latents or args.out / "latents"
    composed = [] if args.composed is None else ComposedDataset.open_all(args.composed)
    composed *= args.composed_times
    kept = None
    if args.variants:
        kept = kept_ids(parts.tokenizers, [data, *composed], args.plain_captions, args.variants, args.workers)
    latents = cached_latents(parts.autoencoder, data, folder, *process_place())
    more = [Sized(one, cached_latents(parts.autoencoder, one, folder, *process_place())) for one in composed]
    return BaseRecipe(data, latents, parts, settings, more=more, kept=kept)


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build))

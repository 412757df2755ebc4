"""Train the PhotoMaker adapter around the frozen base.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 scripts/train_small/adapter.py --data DATA --out OUT \
    --base BASE/export --tower TOWER/export --latents BASE/latents --steps 15000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.encoders.adapter_file import read_adapter
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.errors import SettingsError
from photomaker.training.adapter import AdapterRecipe, AdapterSettings
from photomaker.training.base import BaseParts
from photomaker.training.data import People
from photomaker.training.diffusion import DiffusionSettings
from photomaker.training.id_tower import load_tower, tower_config, tower_sizes
from photomaker.training.latents import cached_latents
from photomaker.training.photos import PhotoSettings
from train_small.common import process_place, run_stage, training_parser


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = training_parser("Train the PhotoMaker adapter.", steps=15_000, batch=16)
    options.add_argument("--base", type=Path, required=True, help="diffusers folder of the base")
    options.add_argument("--tower", type=Path, help="export folder of the image tower")
    options.add_argument(
        "--init", type=Path, help="adapter file to go on from, instead of --tower; give another --seed"
    )
    options.add_argument("--latents", type=Path, help="where latents are kept; default: out/latents")
    options.add_argument("--rank", type=int, default=AdapterSettings.rank)
    options.add_argument("--lr", type=float, default=AdapterSettings.lr, help="of the LoRA")
    options.add_argument("--fusion-lr", type=float, default=AdapterSettings.fusion_lr)
    options.add_argument("--vision-lr", type=float, default=AdapterSettings.vision_lr)
    options.add_argument("--plain-captions", type=float, default=AdapterSettings.plain_captions)
    options.add_argument("--text-only", type=float, default=AdapterSettings.text_only)
    options.add_argument("--masked", type=float, default=AdapterSettings.masked)
    options.add_argument("--face-weight", type=float, default=DiffusionSettings.face, help="1 = off")
    options.add_argument("--min-snr", type=float, default=DiffusionSettings.min_snr, help="0 = off")
    options.add_argument("--no-zero-snr", action="store_true", help="as the base was trained")
    options.add_argument(
        "--crop", type=float, default=0.0, help="ID photos: side in face boxes, 0 = whole picture"
    )
    return options


def build(args: argparse.Namespace, data: People) -> AdapterRecipe:
    """The recipe; latents are computed first where they are missing."""
    settings = AdapterSettings(
        rank=args.rank,
        lr=args.lr,
        fusion_lr=args.fusion_lr,
        vision_lr=args.vision_lr,
        plain_captions=args.plain_captions,
        text_only=args.text_only,
        masked=args.masked,
        photo=PhotoSettings(crop=args.crop),
        diffusion=DiffusionSettings(
            zero_snr=not args.no_zero_snr, min_snr=args.min_snr, face=args.face_weight
        ),
    )
    parts = BaseParts.load(args.base)
    lora = None
    if args.init:
        adapter = read_adapter(args.init)
        id_encoder, lora = adapter.build_encoder().float().requires_grad_(True), adapter.lora
    elif args.tower:
        first, second = (encoder.config.hidden_size for encoder in parts.text_encoders)
        torch.manual_seed(args.seed)
        id_encoder = PhotoMakerIDEncoder(tower_config(tower_sizes(args.tower), (first, second)))
        load_tower(args.tower, id_encoder)
    else:
        raise SettingsError("give --tower, or --init with an adapter to go on from")
    latents = cached_latents(parts.autoencoder, data, args.latents or args.out / "latents", *process_place())
    return AdapterRecipe(data, latents, parts, id_encoder, settings, lora=lora)


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build))

"""Train the small autoencoder.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 scripts/train_small/autoencoder.py --data DATA --out OUT --steps 10000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.synthetic.composed import ComposedDataset
from photomaker.training.data.dataset import People
from photomaker.training.recipes.autoencoder import AutoencoderRecipe, AutoencoderSettings
from train_small.common import run_stage, training_parser


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = training_parser("Train the small autoencoder.", steps=10_000, batch=16)
    options.add_argument("--lr", type=float, default=AutoencoderSettings.lr)
    options.add_argument("--noise", type=float, default=AutoencoderSettings.noise)
    options.add_argument("--scale", type=float, default=AutoencoderSettings.scale, help="scale equivariance")
    options.add_argument(
        "--init", type=Path, help="folder of an autoencoder to go on from; give another --seed"
    )
    options.add_argument(
        "--blocks",
        default="2,2,4,4",
        help="residual blocks: encoder outside, inside, decoder outside, inside",
    )
    options.add_argument(
        "--decoder-only", action="store_true", help="leave the latents of --init as they are"
    )
    options.add_argument("--channels", type=int, default=16, help="channels of the latents")
    options.add_argument("--realism", type=float, default=AutoencoderSettings.realism, help="discriminators")
    options.add_argument("--perceptual", type=float, default=AutoencoderSettings.perceptual)
    options.add_argument("--window", type=int, default=AutoencoderSettings.window, help="side around a face")
    options.add_argument("--composed", type=Path, help="folder of compositions to train on as well")
    options.add_argument("--face-weight", type=float, default=AutoencoderSettings.face)
    options.add_argument("--feature-weight", type=float, default=AutoencoderSettings.features)
    return options


def grown(old: SmallAutoencoder, new: SmallAutoencoder) -> SmallAutoencoder:
    """`new` with the weights of an autoencoder that has no more blocks; those that it has more change nothing yet."""
    for half in ("encoder", "decoder"):
        known = list(getattr(old, half))
        for layer in getattr(new, half):
            if type(layer) is type(known[0]):
                layer.load_state_dict(known.pop(0).state_dict())
            else:
                torch.nn.init.zeros_(layer.conv2.weight)
                torch.nn.init.zeros_(layer.conv2.bias)
    return new


def build(args: argparse.Namespace, data: People) -> AutoencoderRecipe:
    """The recipe."""
    settings = AutoencoderSettings(
        lr=args.lr,
        noise=args.noise,
        scale=args.scale,
        decoder_only=args.decoder_only,
        realism=args.realism,
        perceptual=args.perceptual,
        window=args.window,
        face=args.face_weight,
        features=args.feature_weight,
    )
    blocks = tuple(int(part) for part in args.blocks.split(","))
    sizes = {"encoder_blocks": blocks[:2], "decoder_blocks": blocks[2:]}
    if args.init:
        old = SmallAutoencoder.from_pretrained(args.init, dtype=torch.float32)
        model = grown(old, SmallAutoencoder.from_config({**old.config, **sizes}))
    else:
        model = SmallAutoencoder(latent_channels=args.channels, **sizes)
    more = [] if args.composed is None else ComposedDataset.open_all(args.composed)
    return AutoencoderRecipe(data, model, settings, more=more)


if __name__ == "__main__":
    sys.exit(run_stage(parser(), build))

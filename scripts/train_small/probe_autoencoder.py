"""Choose the small autoencoder: train each candidate for a short time, a small UNet on it, and score what comes out.

python scripts/train_small/probe_autoencoder.py --data data/people --out runs/probe --only c16,c8

What counts is not how well pictures survive the autoencoder but how well a UNet learns its latents: a real photo is
noised to some timesteps, denoised by the text that describes the person, and compared with their other photos.
Each candidate is resumable; `--table` prints what is there as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from photomaker.evaluation.judges.bundled import BundledJudge
from photomaker.evaluation.metrics import mean_cosine
from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.synthetic.dataset import WorldDataset
from photomaker.training.data.dataset import pictures
from photomaker.training.data.latents import cached_latents, encoded
from photomaker.training.data.tokenizer import load_tokenizers
from photomaker.training.losses.diffusion import DiffusionSettings, encode_ids, make_scheduler, time_ids
from photomaker.training.recipes.autoencoder import AutoencoderRecipe, AutoencoderSettings
from photomaker.training.recipes.base import (
    BaseParts,
    BaseRecipe,
    BaseSettings,
    BaseSizes,
    kept_ids,
    token_ids,
)
from photomaker.training.running.loop import train
from photomaker.training.running.settings import TrainSettings
from photomaker.weights import bundled

NOISED = (150, 300, 600, 999)
"""Timesteps of 1000 that a photo is noised to; the last leaves nothing of it."""
STEPS, GUIDANCE = 20, 2.0
PHOTOS, OTHERS = 96, 4
"""Photos that are scored, and photos of the same person that each is compared with."""


@dataclass(frozen=True)
class Candidate:
    """An autoencoder to try.

    Attributes:
        channels: Of the latents.
        settings: Its loss.
    """

    channels: int
    settings: AutoencoderSettings


PLAIN = AutoencoderSettings(lr=1.5e-3)
SMOOTH = replace(PLAIN, noise=0.3, scale=0.5, size=1e-2)
CANDIDATES = {
    "c16": Candidate(16, PLAIN),
    "c8": Candidate(8, PLAIN),
    "c8 smooth": Candidate(8, SMOOTH),
    "c16 smooth": Candidate(16, SMOOTH),
    "c8 perceptual": Candidate(8, replace(PLAIN, perceptual=0.5)),
    "c12 smooth": Candidate(12, SMOOTH),
}


def settings(steps: int, batch: int, seconds: float = 0.0) -> TrainSettings:
    """Of either training; constant but for the warm-up and a cosine to the end."""
    return TrainSettings(
        steps=steps, batch_size=batch, seed=0, warmup=min(200, steps // 5), schedule="cosine", ema_decay=0.995,
        clip=1.0, precision="auto", save_every=0 if seconds else 500, log_every=100, keep=1, seconds=seconds,
    )  # fmt: skip


def trained(one: Candidate, data: WorldDataset, out: Path, given: argparse.Namespace) -> BaseParts:
    """The candidate and a base on it, from disk where they are."""
    times = given.batch_times
    tokenizers, base = (
        load_tokenizers(bundled("base")),
        BaseSettings(lr=8e-4, text_lr=5e-4, diffusion=DiffusionSettings(face=4.0)),
    )
    kept = None
    if given.variants:  # before anything is trained: processes are forked for it
        kept = kept_ids(tokenizers, [data], base.plain_captions, given.variants, given.workers)
    torch.manual_seed(0)
    recipe = AutoencoderRecipe(data, SmallAutoencoder(latent_channels=one.channels), one.settings)
    train(recipe, settings(given.steps, 16 * times, given.seconds), out / "autoencoder")
    autoencoder = SmallAutoencoder.from_pretrained(out / "autoencoder" / "export", dtype=torch.float32)
    parts = BaseParts.new(autoencoder, tokenizers, BaseSizes())
    latents = cached_latents(autoencoder, data, out / "latents")
    train(
        BaseRecipe(data, latents, parts, base, kept=kept),
        settings(given.base_steps, 32 * times, given.seconds),
        out / "base",
    )
    return BaseParts.load(out / "base" / "export")


@torch.no_grad()
def denoised(parts: BaseParts, latents: torch.Tensor, captions: list[str], start: int) -> torch.Tensor:
    """Latents drawn on from a timestep of theirs, with guidance by the captions."""
    scheduler = make_scheduler(DiffusionSettings())
    scheduler.set_timesteps(STEPS)
    first = int((scheduler.timesteps <= start).nonzero()[0])
    generator = torch.Generator().manual_seed(start)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    scheduler.set_begin_index(first)
    noisy = scheduler.add_noise(latents, noise, scheduler.timesteps[first : first + 1])
    ids = token_ids(parts.tokenizers, captions)
    embeds, pooled = encode_ids(parts.text_encoders, (ids[0].to(latents.device), ids[1].to(latents.device)))
    embeds, pooled = (torch.cat([torch.zeros_like(one), one]) for one in (embeds, pooled))
    added = {"text_embeds": pooled, "time_ids": time_ids(len(embeds), 128).to(latents.device)}
    for step in scheduler.timesteps[first:]:
        doubled = scheduler.scale_model_input(torch.cat([noisy] * 2), step)
        without, with_text = parts.unet(
            doubled, step, encoder_hidden_states=embeds, added_cond_kwargs=added
        ).sample.chunk(2)
        guided = without + GUIDANCE * (with_text - without)
        noisy = scheduler.step(guided, step, noisy, generator=generator).prev_sample
    return noisy


def shown(pixels: torch.Tensor) -> list[Image.Image]:
    """Pictures of [batch, 3, h, w] in -1..1."""
    levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in levels]


@torch.no_grad()
def scored(parts: BaseParts, data: WorldDataset, out: Path, photos: int) -> dict[str, float]:
    """Likeness over that of the real photos, of pictures that went through the autoencoder and of denoised ones."""
    judge, rng = BundledJudge.open(), np.random.default_rng(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for module in (parts.autoencoder, parts.unet, *parts.text_encoders):
        module.to(device)
    held_out = np.arange(len(data) - 256, len(data))
    rows = rng.permutation(held_out[data.is_photo[held_out]])[:photos]
    real = pictures(data, rows)
    captions = [data.caption(int(row), rng, 1.0) for row in rows]
    others = []
    for row in rows:
        mine = data.rows_of(int(data.person[row]))
        chosen = [int(one) for one in mine if data.is_photo[one] and one != row]
        others.append(judge.measure(shown(pictures(data, np.array(chosen[:OTHERS])))).embeddings)

    def likeness(pixels: torch.Tensor) -> float:
        seen = judge.measure(shown(pixels)).embeddings
        return float(
            np.mean([mean_cosine(one[None], known)[0] for one, known in zip(seen, others, strict=True)])
        )

    ceiling = likeness(real)
    clean = torch.from_numpy(encoded(parts.autoencoder, real)).float().to(device)
    scale = parts.autoencoder.config.scaling_factor

    def decoded(latents: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = parts.autoencoder.decode(latents / scale, return_dict=False)[0]
        return found

    through = decoded(clean)
    figures = {"ceiling": ceiling, "through": likeness(through) / ceiling}
    spectrum = torch.fft.rfft2(clean.cpu()).abs().square()
    along = torch.fft.fftfreq(clean.shape[-2]).abs()[:, None], torch.fft.rfftfreq(clean.shape[-1])[None]
    high = torch.maximum(*torch.broadcast_tensors(*along)) > 0.25
    figures["high"] = float((spectrum * high).sum() / spectrum.sum())
    sheet = [real[:12], through[:12]]
    for start in NOISED:
        pixels = decoded(denoised(parts, clean, captions, start))
        figures[f"from {start}"] = likeness(pixels) / ceiling
        sheet.append(pixels[:12])
    lines = [np.concatenate([np.asarray(one) for one in shown(line)], 1) for line in sheet]
    Image.fromarray(np.concatenate(lines)).save(out / "sheet.png")
    return figures


def table(out: Path) -> str:
    """What has been scored, as Markdown."""
    head = ["candidate", "dB", "dB in faces", "through it", "power in high frequencies"]
    head += [f"from t = {start}" for start in NOISED]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in CANDIDATES:
        place = out / name.replace(" ", "_") / "scores.json"
        if place.is_file():
            found = json.loads(place.read_text())
            cells = [f"{found['psnr']:.1f}", f"{found['face_psnr']:.1f}"]
            cells += [
                f"{100 * found[key]:.1f} %" for key in ("through", "high", *(f"from {t}" for t in NOISED))
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train and score the candidates that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/people"))
    parser.add_argument("--out", type=Path, default=Path("runs/probe"))
    parser.add_argument("--only", default=",".join(CANDIDATES), help="names of candidates, with commas")
    parser.add_argument("--steps", type=int, default=2400, help="of the autoencoder, 16 pictures each")
    parser.add_argument("--base-steps", type=int, default=1700, help="of the base, 32 pictures each")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="time of each training, in the place of steps"
    )
    parser.add_argument("--batch-times", type=int, default=1, help="larger batches, for a GPU")
    parser.add_argument(
        "--variants", type=int, default=0, help="captions made beforehand, for a GPU; 0 = none"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that make them")
    parser.add_argument("--photos", type=int, default=PHOTOS, help="photos that are scored")
    parser.add_argument("--table", action="store_true", help="only print what has been scored")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(given.workers)
    torch.set_flush_denormal(True)
    for name in [] if given.table else given.only.split(","):
        out = given.out / name.replace(" ", "_")
        if (out / "scores.json").is_file():
            continue
        data = WorldDataset.open(given.data)
        parts = trained(CANDIDATES[name], data, out, given)
        figures = scored(parts, data, out, given.photos)
        parts.autoencoder.to("cpu")
        recipe = AutoencoderRecipe(data, parts.autoencoder)
        figures |= recipe.validate(np.random.default_rng(0), torch.Generator())
        (out / "scores.json").write_text(json.dumps(figures, indent=2))
    print(table(given.out))


if __name__ == "__main__":
    main()

"""At which noise the person matters: loss of unseen people with their own photos, and what a stranger's add to it.

A=src/photomaker/assets/small
python scripts/look_at_noise.py examples/configs/train_small.yaml $A/adapter/photomaker.safetensors
python scripts/look_at_noise.py examples/configs/train_small_ip_adapter.yaml $A/methods/ip_adapter.safetensors

For adapters of the small base, PhotoMaker's and IP-Adapter's; the people are those that the settings hold out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from photomaker import config as settings_file
from photomaker.encoders.ip_adapter import read_ip_adapter
from photomaker.training.plan import TrainConfig, build
from photomaker.training.recipes.ip_adapter import IPAdapterRecipe
from photomaker.training.recipes.people import Noised, PeopleRecipe

TIMESTEPS = (999, 949, 849, 749, 599, 399, 199, 49)
SEEN = ("recipe.plain_captions=1.0", "recipe.photo={noise: 0.0, grey: 1.0, brightness: 0.0, shift: 0}")
"""Nothing of a person in the words, and photos as at inference."""


def opened(config: Path, weights: Path, data: str) -> PeopleRecipe:
    """The recipe of a settings file with trained weights in it."""
    changes = [*SEEN, f"data.folder={data}", "loop.preview_every=0"]
    plain = settings_file.read(config, TrainConfig, changes)
    if plain.method == "photomaker":
        start = [f"encoder.start={weights}", "encoder.anew=false", "recipe.attention=0"]
        plain = settings_file.read(config, TrainConfig, [*changes, *start])
    recipe = build(plain)
    recipe.prepare(torch.device("cpu"))
    if isinstance(recipe, IPAdapterRecipe):
        stored = read_ip_adapter(weights)
        for number, layer in recipe.layers.items():
            for name in ("to_k_ip", "to_v_ip"):
                getattr(layer, name)[0].weight.data.copy_(stored.ip_adapter[f"{number}.{name}.weight"])
        recipe.projection.load_state_dict({name: one.float() for name, one in stored.image_proj.items()})
    return recipe


@torch.no_grad()
def measured(recipe: PeopleRecipe, count: int) -> list[tuple[float, float]]:
    """Loss on the person with their own photos, and with a stranger's, at each of `TIMESTEPS`."""
    rng = np.random.default_rng(0)
    photos = recipe.held_out[recipe.data.is_photo[recipe.held_out]]
    rows = photos[rng.permutation(len(photos))[:count]]
    own = recipe._references(rows, rng)
    captions = [recipe._caption(int(row), rng) for row in rows]
    half = len(own) // 2
    with_photos = np.zeros(len(rows), dtype=bool)
    conditions = [recipe.condition(captions, one, with_photos, rng) for one in (own, own[half:] + own[:half])]
    weight = recipe.weight(rows, ~with_photos)
    clean = torch.from_numpy(np.asarray(recipe.latents[rows], dtype=np.float32))
    found = []
    for step in TIMESTEPS:
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(step))
        bar = recipe.noising.alpha_bar[step]
        a, s = bar.sqrt(), (1 - bar).sqrt()
        noised = Noised(
            rows,
            clean,
            a * clean + s * noise,
            torch.full((len(rows),), step),
            a * noise - s * clean,  # the small base predicts v
            torch.ones(len(rows), 1, 1, 1),
        )
        losses = [
            float(recipe.errors(noised, recipe.predict(noised, one), weight).mean()) for one in conditions
        ]
        found.append((losses[0], losses[1]))
    return found


def main() -> None:
    """Print a line a timestep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="settings of a training")
    parser.add_argument("weights", type=Path, help="what it exported")
    parser.add_argument("--data", default="data/people")
    parser.add_argument("--rows", type=int, default=96)
    given = parser.parse_args()
    torch.manual_seed(0)
    print("timestep    own photos    a stranger's add")
    for step, (own, stranger) in zip(
        TIMESTEPS, measured(opened(given.config, given.weights, given.data), given.rows), strict=True
    ):
        print(f"{step:8} {own:13.4f} {stranger - own:19.4f}")


if __name__ == "__main__":
    main()

"""The image tower imitates a recogniser: at the right places, and it gets closer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from fake_world import FakeWorld

from photomaker.training.recipes.id_tower import (
    Lesson,
    TowerRecipe,
    TowerSettings,
    TowerSizes,
    inside_squares,
    tower_config,
)
from photomaker.training.running.loop import TrainSettings, train


def test_tokens_are_sampled_where_the_square_is() -> None:
    grid = torch.arange(64, dtype=torch.float32).reshape(8, 8)
    tokens = torch.cat([torch.zeros(1, 1, 1), grid.reshape(1, 64, 1)], dim=1)
    whole = inside_squares(tokens, torch.tensor([[0.0, 0.0, 128.0, 128.0]]), 8)
    assert torch.allclose(whole[0, 0], grid)
    corner = inside_squares(tokens, torch.tensor([[64.0, 32.0, 128.0, 96.0]]), 4)
    assert torch.allclose(corner[0, 0], grid[2:6, 4:8])
    outside = inside_squares(tokens, torch.tensor([[200.0, 200.0, 260.0, 260.0]]), 4)
    assert not outside.any()


def test_the_tower_gets_closer_to_its_teacher(tmp_path: Path) -> None:
    world = FakeWorld()

    def teach(rows: np.ndarray) -> Lesson:
        pixels = torch.from_numpy(np.asarray(world.images[rows])).float().permute(0, 3, 1, 2) / 255
        maps = torch.nn.functional.adaptive_avg_pool2d(pixels, 4)
        embeddings = torch.nn.functional.normalize(maps.mean((2, 3)) - 0.5, dim=-1)
        return Lesson(maps, embeddings, torch.tensor([[0.0, 0.0, 128.0, 128.0]]).expand(len(rows), 4))

    config = tower_config(TowerSizes(width=32, layers=1, patch=32, mlp=1), (32, 32))
    recipe = TowerRecipe(world, config, TowerSettings(names=0.0, factors=0.0, word=0.0), teacher=teach)
    train(recipe, TrainSettings(steps=60, batch_size=8, log_every=5, precision="fp32"), tmp_path)
    lines = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    imitation = [line["imitation"] for line in lines if "imitation" in line]
    assert imitation[-1] < 0.8 * imitation[0]

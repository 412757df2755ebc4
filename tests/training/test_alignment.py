"""Alignment: its losses by hand, and what is compared while a recipe is finished by reward."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_methods import make

from photomaker.errors import SettingsError
from photomaker.training.losses.alignment import semantic_loss
from photomaker.training.recipes.reward import RewardRecipe, RewardSettings

ALIGNED = RewardSettings(steps=3, through=2, guidance=2.0, merge=0.0, likeness=0.0, semantic=0.6, layout=0.1)


class Nobody:
    def detect(self, image: object) -> list[object]:
        return []


def test_the_semantic_loss_by_hand() -> None:
    """One word of width 1 asks two places."""
    features, other = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])
    word = 0.5
    weights = [math.exp(word * one) for one in (1.0, 3.0)]
    answer = (weights[0] * 1 + weights[1] * 3) / sum(weights)
    found = semantic_loss(features.view(1, 1, 2, 1), other.view(1, 1, 2, 1), torch.full((1, 1, 1, 1), word))
    assert found.item() == pytest.approx((answer - 2) ** 2, rel=1e-5)


def losses(recipe: RewardRecipe) -> tuple[torch.Tensor, dict[str, float]]:
    return recipe.loss(np.array([0, 7]), np.random.default_rng(0), torch.Generator().manual_seed(0))


def test_a_person_of_no_weight_disturbs_nothing_and_others_are_pulled_back(tmp_path: Path) -> None:
    inner = make("pulid", tmp_path)
    recipe = RewardRecipe(inner, ALIGNED, Nobody())  # type: ignore[arg-type]
    total, figures = losses(recipe)
    assert figures["semantic"] > 0 and figures["layout"] > 0
    ordinary = figures["diffusion"]
    wanted = ordinary + 0.6 * figures["semantic"] + 0.1 * figures["layout"]
    assert float(total.detach()) == pytest.approx(wanted, rel=1e-4)
    (total - total.detach()).backward()
    assert all(layer.id_to_v.weight.grad.abs().sum() > 0 for layer in inner.layers.values())
    for layer in inner.layers.values():
        layer.id_to_v.weight.data.zero_()
    _, figures = losses(recipe)
    assert figures["semantic"] == pytest.approx(0, abs=1e-9) and figures["layout"] == pytest.approx(
        0, abs=1e-9
    )


def test_without_alignment_nothing_is_drawn_twice(tmp_path: Path) -> None:
    inner = make("pulid", tmp_path)
    settings = RewardSettings(steps=3, through=2, guidance=2.0, merge=0.0, likeness=0.0, diffusion=0.0)
    recipe, calls = RewardRecipe(inner, settings, Nobody()), []  # type: ignore[arg-type]
    hook = inner.parts.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    _, figures = losses(recipe)
    hook.remove()
    assert len(calls) == 3 and not {"semantic", "layout"} & figures.keys()


def test_weights_out_of_range() -> None:
    with pytest.raises(SettingsError, match=r"reward\.semantic is -1"):
        RewardSettings(semantic=-1)

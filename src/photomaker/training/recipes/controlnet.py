"""Recipe of a ControlNet: a copy of the UNet's first half that follows a structure, beside a frozen base.

Rows, captions, noise and loss are those of `training.people`; photos are not used. Half of the captions are left out by
`diffusion.null_text`, as in the paper, so that the structure itself must say what it shows.

Source: arXiv 2302.05543, section 3.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from photomaker.pipelines.structures.structures import Drawing, write_notes
from photomaker.training.data.structures import HINT, RowStructures, check_hint, net_of
from photomaker.training.data.texts import Caption
from photomaker.training.recipes.base import decayed_groups
from photomaker.training.recipes.people import Condition, Ingredients, Noised, PeopleRecipe


@dataclass(frozen=True)
class ControlNetSettings:
    """What is a ControlNet's own.

    Of `AdapterSettings`, `lr` is its rate and `diffusion.null_text` the share of rows without a caption; what concerns
    photos does nothing.

    Attributes:
        drawing: What it follows, and how that is drawn.
        hint: Widths of the layers that read the structure, each but the last halving it.

    Raises:
        SettingsError: A value is outside its range.
    """

    drawing: Drawing = field(default_factory=Drawing)
    hint: tuple[int, ...] = HINT

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_hint(self.hint)


class ControlNetRecipe(PeopleRecipe):
    """Trains a ControlNet; see `PeopleRecipe`.

    Args:
        id_encoder: Not used.
        own: What is a ControlNet's own.
        seed: Of the weights of the layers that read the structure.

    Raises:
        SettingsError: The data does not know the structure.
    """

    name = "controlnet"

    def __init__(
        self,
        given: Ingredients,
        *,
        own: ControlNetSettings = ControlNetSettings(),
        seed: int = 0,
    ) -> None:
        """Freeze the base and put the ControlNet beside it."""
        super().__init__(given)
        self.own = own
        self.structures = RowStructures(given.data, self.frames, own.drawing)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = self.beside(net_of(given.parts.unet, own.hint))

    def modules(self) -> dict[str, nn.Module]:
        """Return the ControlNet."""
        return {"controlnet": self.net}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the ControlNet's weights."""
        return decayed_groups(self.net, self.settings.lr, self.settings.weight_decay)

    def signature(self) -> dict[str, str]:
        """Base, data, structure and sizes; see `Recipe.signature`."""
        return {"drawing": str(self.own.drawing), "hint": str(list(self.own.hint)), **self.origin}

    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """The prompt's text alone; see `PeopleRecipe.condition`."""
        del references, text_only, rng
        encoded = self.texts(captions, [1] * len(captions), self.device)
        return Condition(encoded.embeds.float(), encoded.pooled)

    def predict(self, noised: Noised, condition: Condition) -> Tensor:
        """See `PeopleRecipe.predict`, with what the ControlNet adds."""
        return self.following(noised, condition, noised.rows)

    def following(self, noised: Noised, condition: Condition, rows: np.ndarray) -> Tensor:
        """The prediction where the structures are those of other rows [batch] of the data."""
        structure = self.structures(rows)
        return self.followed(noised, condition, self.net, structure, condition.embeds, condition.embeds)

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """The person's loss for unseen people, with the structures of their pictures and with those of others'."""
        del generator
        totals: dict[str, list[Tensor]] = {"loss": [], "loss_of_other_structure": []}
        for rows in self._validated():
            captions = [self._caption(int(row), rng) for row in rows]
            weight = self.weight(rows, np.ones(len(rows), dtype=bool))
            condition = self.condition(captions, [], np.zeros(len(rows), dtype=bool), rng)
            seed = int(rng.integers(2**62))
            for name, followed in (("loss", rows), ("loss_of_other_structure", np.roll(rows, 1))):
                noised = self.noised(rows, torch.Generator().manual_seed(seed))
                totals[name].append(self.errors(noised, self.following(noised, condition, followed), weight))
        return {name: float(torch.cat(parts).mean()) for name, parts in totals.items() if parts}

    def export(self, folder: Path) -> None:
        """Write diffusers' layout, and what the ControlNet follows beside it."""
        copy.deepcopy(self.net).half().save_pretrained(folder)
        write_notes(folder, self.own.drawing)

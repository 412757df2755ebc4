"""Recipe of PuLID: ID encoder and second keys and values, beside a frozen base and a frozen image tower.

Rows, photos, noise, masks and the diffusion loss are those of `training.people`. PuLID's other two losses, contrastive
alignment and the identity loss through few steps, are rewards of `training.reward` (`semantic`, `layout`, `likeness`).
Rows without photos are the base itself, so that the path without a person is what it is for PuLID: not disturbed.

Source: arXiv 2404.16022, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from photomaker.encoders.instantid import scaled
from photomaker.encoders.ip_adapter import cross_attentions
from photomaker.encoders.pulid import FormerSizes, IDFormer, export_pulid, side_by_side
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError
from photomaker.pipelines.attention.id_attention import IDAttention
from photomaker.training.data.texts import Caption
from photomaker.training.recipes.instantid import Embeddings
from photomaker.training.recipes.people import (
    Condition,
    Ingredients,
    Noised,
    PeopleRecipe,
    check_layers,
    mean_of_photos,
)

FILE = "pulid.safetensors"
_HEAD = 64


@dataclass(frozen=True)
class PuLIDSettings:
    """Settings specific to PuLID.

    Of `AdapterSettings`, `lr` is the rate of keys and values and `fusion_lr` that of the ID encoder; rows without
    photos (`text_only`) teach nothing, and `rank`, `vision` and `vision_lr` do nothing.

    Attributes:
        layers: Layers of the image tower that are read, from early to late; from the end where below 0.
        queries: Tokens of a person.
        dim: Width of the ID encoder, a multiple of 64.
        hidden: Width of the maps into it.
        depth: Its layers, a multiple of the number of `layers`.
        id_tokens: Tokens that the embeddings become inside it.
        width: Width of the face embeddings that shards hold; others are as wide as the recogniser makes them.
        recogniser: What the face embeddings are of, noted in the file: `bundled`, or the name of an InsightFace pack.

    Raises:
        SettingsError: A value is outside its range.
    """

    layers: tuple[int, ...] = (4, 8, 12, 16, 20)
    queries: int = 32
    dim: int = 1024
    hidden: int = 1024
    depth: int = 10
    id_tokens: int = 5
    width: int = 512
    recogniser: str = "antelopev2"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("queries", "hidden", "id_tokens"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a whole number from 1 up")
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise SettingsError(f"layers is {list(self.layers)}; give one or more different numbers")
        if self.dim < 1 or self.dim % _HEAD:
            raise SettingsError(f"dim is {self.dim}; give a multiple of {_HEAD}")
        if self.depth < 1 or self.depth % len(self.layers):
            raise SettingsError(
                f"depth is {self.depth}; give a multiple of {len(self.layers)}, the number of layers that are read"
            )


class PuLIDRecipe(PeopleRecipe):
    """Trains PuLID; see `PeopleRecipe`.

    Args:
        id_encoder: Its image tower sees the photos and stays as it is.
        embeddings: The recogniser's, of rows.
        own: What is PuLID's own.
        seed: Of the new ID encoder's weights.

    Raises:
        SettingsError: The image tower has fewer layers than are to be read.
    """

    name = "pulid"

    def __init__(
        self,
        given: Ingredients,
        *,
        embeddings: Embeddings,
        own: PuLIDSettings = PuLIDSettings(),
        seed: int = 0,
    ) -> None:
        """Freeze base and tower and put the new layers beside them."""
        super().__init__(given)
        self.own, self.embeddings = own, embeddings
        self.tower = ImageTower.of_encoder(given.id_encoder)
        check_layers("pulid.layers", own.layers, self.tower)
        width = int(given.parts.unet.config.cross_attention_dim)
        face_width = int(embeddings(self.rows[:1]).shape[-1])
        sizes = FormerSizes(
            face_width + self.tower.width, int(self.tower.config.hidden_size), len(own.layers), own.dim,
            own.hidden, own.depth, own.queries, own.id_tokens, width,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.former = IDFormer(sizes)
        self.layers = _id_attentions(given.parts.unet)

    def prepare(self, device: torch.device) -> None:
        """Move the frozen tower and text encoders."""
        super().prepare(device)
        self.tower.to(device)

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet, of which only the new layers are trained, and the ID encoder."""
        return {"unet": self.parts.unet, "id_encoder": self.former}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return keys and values, and the ID encoder, each at its own rate."""
        return self.token_rates(self.layers.values(), self.former)

    def signature(self) -> dict[str, str]:
        """Base, data, sizes and recogniser; see `Recipe.signature`."""
        sizes = str([*self.own.layers, self.former.sizes])
        return {"sizes": sizes, "recogniser": self.own.recogniser, **self.origin}

    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """The prompt's text alone, and the mean of the photos' tokens; see `PeopleRecipe.condition`."""
        encoded = self.texts(captions, [1] * len(captions), self.device)
        with torch.no_grad():
            face = scaled(self.embeddings(np.concatenate(references)).float()).to(self.device)
            pooled, layers = self.tower.several(self.photos(references, rng), self.own.layers)
            seen = side_by_side(face, pooled.float())
        tokens = mean_of_photos(self.former(seen, layers.float()), references)
        nobody = self.former(torch.zeros_like(seen[:1]), torch.zeros_like(layers[:1]).float())
        there = torch.from_numpy(~text_only).to(self.device).float()[:, None]
        more = {"tokens": tokens, "there": there}
        nothing = {"tokens": nobody.expand_as(tokens), "there": there}
        return Condition(encoded.embeds.float(), encoded.pooled, more, nothing)

    def predict(self, noised: Noised, condition: Condition) -> Tensor:
        """See `PeopleRecipe.predict`, with the person's tokens in the attention."""
        for layer in self.layers.values():
            layer.tokens = condition.more["tokens"]
            layer.scale = condition.more["there"][..., None]
        return super().predict(noised, condition)

    def export(self, folder: Path) -> None:
        """Write the layout of PuLID 1.1."""
        weights = {
            number: (layer.id_to_k.weight, layer.id_to_v.weight) for number, layer in self.layers.items()
        }
        own = {
            "layers": list(self.own.layers),
            "recogniser": self.own.recogniser,
            "scaled": True,
            "mode": "plain",
            "crop": self.settings.photo.crop,
        }
        export_pulid(folder / FILE, self.former, weights, {**self.notes, **own})


def _id_attentions(unet: Any) -> dict[int, IDAttention]:  # noqa: ANN401 - a diffusers UNet
    """A trainable second attention beside every one over the text, by number; each starts as that one."""
    layers, processors = {}, dict(unet.attn_processors)
    for number, name in cross_attentions(unet).items():
        layer: Any = unet.get_submodule(name)
        made = IDAttention(layer.to_k.in_features, layer.to_k.out_features)
        made.id_to_k.weight.data.copy_(layer.to_k.weight.data.float())
        made.id_to_v.weight.data.copy_(layer.to_v.weight.data.float())
        layers[number] = processors[f"{name}.processor"] = made
    unet.set_attn_processor(processors)
    return layers

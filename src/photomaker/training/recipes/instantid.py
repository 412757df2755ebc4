"""Recipe of InstantID: resampler, second keys and values, and an IdentityNet, beside a frozen base.

Rows, photos, noise, masks and loss are those of `training.people`. The recogniser's embeddings of a row's photos are
averaged, as at inference; the IdentityNet sees the landmarks of the picture that is to be drawn. What differs from the
paper: conditions are dropped at random, as for the other methods, so that the empty condition is a learned one.

Source: arXiv 2401.07519, section 3; the IdentityNet starts as a copy of the UNet's first half (arXiv 2302.05543).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from photomaker.encoders.instantid import FILES, NET, RECOGNISER, scaled
from photomaker.encoders.ip_adapter import ImageResampler, export_ip_adapter
from photomaker.errors import SettingsError
from photomaker.pipelines.structures.landmarks import Pencil
from photomaker.pipelines.structures.structures import Drawing
from photomaker.training.data.dataset import Album
from photomaker.training.data.structures import HINT, RowStructures, check_hint, net_of
from photomaker.training.data.texts import Caption
from photomaker.training.recipes.base import decayed_groups
from photomaker.training.recipes.ip_adapter import keys_and_values, put_beside
from photomaker.training.recipes.people import (
    Condition,
    Ingredients,
    Noised,
    PeopleRecipe,
    mean_of_photos,
)
from photomaker.training.recipes.photoverse import FaceEmbedding

FILE = FILES[1]
Embeddings = Callable[[np.ndarray], Tensor]
"""Rows of the data [photos] to face embeddings [photos, E]."""


@dataclass(frozen=True)
class InstantIDSettings:
    """Settings specific to InstantID.

    Of `AdapterSettings`, `lr` is the rate of keys and values, `fusion_lr` that of the resampler, and `text_only` the
    share of rows without photos; `rank`, `vision` and `vision_lr` do nothing.

    Attributes:
        queries: Tokens of a person.
        hidden: Width of the resampler, a multiple of 64.
        net_lr: Peak learning rate of the IdentityNet.
        hint: Widths of the layers that read the drawing, each but the last halving it; the drawing must come out at the
            latents' size.
        pencil: Sizes of the drawing's strokes.
        width: Width of the embeddings that shards hold; others are as wide as the recogniser makes them.
        recogniser: What the embeddings are of, noted in the file: `bundled`, or the name of an InsightFace pack.

    Raises:
        SettingsError: A value is outside its range.
    """

    queries: int = 16
    hidden: int = 1280
    net_lr: float = 1e-5
    hint: tuple[int, ...] = HINT
    pencil: Pencil = field(default_factory=Pencil)
    width: int = 512
    recogniser: str = RECOGNISER

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.queries < 1:
            raise SettingsError(f"queries is {self.queries}; give a whole number from 1 up")
        if self.hidden < 1 or self.hidden % 64:
            raise SettingsError(f"hidden is {self.hidden}; give a multiple of 64")
        if self.net_lr < 0:
            raise SettingsError(f"net_lr is {self.net_lr}; give a number from 0 up")
        check_hint(self.hint)


def seen_faces(data: Album, face: FaceEmbedding) -> Embeddings:
    """Embeddings of faces in the pictures of `data`, computed when they are asked for."""

    @torch.no_grad()
    def embed(rows: np.ndarray) -> Tensor:
        found = []
        for row in rows:  # pictures may be of several sizes
            pixels = torch.from_numpy(np.array(data.images[int(row)])).permute(2, 0, 1)[None].float() / 255
            found.append(face(pixels, torch.from_numpy(np.asarray(data.boxes[int(row)]))[None]))
        return torch.cat(found)

    return embed


def kept_faces(embeddings: np.ndarray) -> Embeddings:
    """Embeddings [rows, E] that are there already."""
    known = torch.from_numpy(embeddings)
    return lambda rows: known[torch.from_numpy(rows)]


class InstantIDRecipe(PeopleRecipe):
    """Trains InstantID; see `PeopleRecipe`.

    Args:
        id_encoder: Not used; it says how large photos are.
        embeddings: The recogniser's, of rows.
        own: What is InstantID's own.
        seed: Of the new resampler's weights.

    Raises:
        SettingsError: The data has no landmarks.
    """

    name = "instantid"

    def __init__(
        self,
        given: Ingredients,
        *,
        embeddings: Embeddings,
        own: InstantIDSettings = InstantIDSettings(),
        seed: int = 0,
    ) -> None:
        """Freeze the base and put the new layers and the IdentityNet beside it."""
        super().__init__(given)
        self.own, self.embeddings = own, embeddings
        self.structures = RowStructures(given.data, self.frames, Drawing("landmarks", own.pencil))
        unet, width = given.parts.unet, int(given.parts.unet.config.cross_attention_dim)
        face_width = int(embeddings(self.rows[:1]).shape[-1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = self.beside(net_of(unet, own.hint))
            self.projection = ImageResampler(face_width, width, own.queries, own.hidden)
        self.layers = put_beside(unet, self.projection, own.queries, self.plain)

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet, of which only the new layers are trained, and the IdentityNet."""
        return {"unet": self.parts.unet, "identity_net": self.net}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return keys and values, the resampler and the IdentityNet, each at its own rate."""
        s = self.settings
        return [
            *self.token_rates(self.layers.values(), self.projection),
            *decayed_groups(self.net, self.own.net_lr, s.weight_decay),
        ]

    def signature(self) -> dict[str, str]:
        """Base, data, sizes and recogniser; see `Recipe.signature`."""
        own = self.own
        sizes = str([own.queries, own.hidden, *own.hint, own.pencil.radius, own.pencil.stick])
        return {"sizes": sizes, "recogniser": own.recogniser, **self.origin}

    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """The prompt's text alone, and the mean embedding of the photos; see `PeopleRecipe.condition`."""
        del rng
        encoded = self.texts(captions, [1] * len(captions), self.device)
        with torch.no_grad():
            each = scaled(self.embeddings(np.concatenate(references)).float())
            seen = mean_of_photos(each, references)
        keep = torch.from_numpy(~text_only)[:, None]
        # one picture a row, of one token, as diffusers counts
        person = (seen * keep).to(self.device)[:, None, None]
        return Condition(encoded.embeds.float(), encoded.pooled, {"person": person})

    def added(self, condition: Condition) -> dict[str, Any]:
        """Give the UNet the person."""
        return {"image_embeds": [condition.more["person"]]}

    def drawings(self, rows: np.ndarray) -> Tensor:
        """The landmarks of pictures as the IdentityNet sees them [batch, 3, h, w] in 0..1."""
        return self.structures(rows).to(self.device)

    def predict(self, noised: Noised, condition: Condition) -> Tensor:
        """See `PeopleRecipe.predict`, with what the IdentityNet adds."""
        read = self.projection(condition.more["person"][:, 0])
        return self.followed(noised, condition, self.net, self.drawings(noised.rows), condition.embeds, read)

    def export(self, folder: Path) -> None:
        """Write the published layout: the adapter's file, and the IdentityNet's folder beside it."""
        own = {"recogniser": self.own.recogniser, "scaled": True, "pencil": asdict(self.own.pencil)}
        export_ip_adapter(folder / FILE, self.projection, keys_and_values(self.layers), {**self.notes, **own})
        copy.deepcopy(self.net).half().save_pretrained(folder / NET)

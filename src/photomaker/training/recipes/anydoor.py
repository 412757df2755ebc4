"""Recipe of AnyDoor: a detail extractor, the half of the UNet that doubles, and a map of the subject's tokens.

A row is a picture with a hole where a subject was, and another picture of the same subject: a person, or a hat or
piece of clothing that somebody else wears. What differs from the paper: the whole picture is drawn and no crop around
the hole; a share of the rows reads a black picture for the subject, so that the empty condition is a learned one;
timesteps are those of the other recipes, for all pairs here are two pictures of one subject.

Source: arXiv 2307.09481, sections 3.1 to 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from photomaker.encoders.anydoor import export_anydoor, new_detail_net, trained_part
from photomaker.encoders.subject_tower import BUNDLED, SubjectTower
from photomaker.errors import SettingsError
from photomaker.pipelines.structures.collage import (
    Hole,
    box_of,
    box_region,
    cut_subject,
    grown,
    high_frequency,
)
from photomaker.synthetic.items import ITEMS
from photomaker.training.data.dataset import mask_map
from photomaker.training.data.texts import Caption
from photomaker.training.losses.diffusion import null_rows
from photomaker.training.recipes.base import decayed_groups, thirds
from photomaker.training.recipes.people import Condition, Ingredients, Noised, PeopleRecipe

FILE = "anydoor.safetensors"
PERSON = "person"
_ROOMS = (1.1, 1.4)
"""Side of a subject's picture in sides of its box, between which it is drawn."""
_LEAST = 64  # pixels of a subject below which another is taken


@dataclass(frozen=True)
class AnyDoorSettings:
    """Settings specific to AnyDoor.

    Of `AdapterSettings`, `lr` is the rate of the detail extractor, `fusion_lr` that of the UNet's half and the map of
    tokens; `rank`, `vision`, `vision_lr`, `photos` and `text_only` do nothing.

    Attributes:
        hint: Widths of the layers that read the collage, each but the last halving it; they must come out at the
            latents' size.
        items: Share of the rows whose subject is a hat or a piece of clothing, for data that knows them.
        shape: Share of the rows whose hole has the subject's rough shape and is not a box.
        inside: Weight of the loss inside the hole; 1 is the paper's.
        tower: What reads the subject: `bundled`, which is the tower that `encoder.start` names, or DINOv2 (folder or
            hub id).

    Raises:
        SettingsError: A value is outside its range.
    """

    hint: tuple[int, ...] = (16, 32, 96, 256)
    items: float = 0.0
    shape: float = 0.7
    inside: float = 1.0
    tower: str = BUNDLED

    def __post_init__(self) -> None:
        """Check the ranges."""
        if len(self.hint) != 4 or min(self.hint) < 1:  # noqa: PLR2004 - three halvings make the latents' size
            raise SettingsError(f"hint is {list(self.hint)}; give four whole numbers from 1 up")
        for name in ("items", "shape"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")
        if self.inside <= 0:
            raise SettingsError(f"inside is {self.inside}; give a number above 0")


@dataclass(frozen=True)
class Pair:
    """A picture to draw and where its subject is seen otherwise.

    Attributes:
        target: Row of the picture.
        reference: Row of the other picture.
        kind: `person`, `hat` or `clothing`.
    """

    target: int
    reference: int
    kind: str = PERSON


class AnyDoorRecipe(PeopleRecipe):
    """Trains AnyDoor; see `PeopleRecipe`.

    Args:
        id_encoder: Its image tower reads subjects, unless `own` names another, and stays as it is.
        own: What is AnyDoor's own.
        seed: Of the new map's weights.

    Raises:
        SettingsError: Items are asked for of data that does not know them.
    """

    name = "anydoor"

    def __init__(
        self,
        given: Ingredients,
        *,
        own: AnyDoorSettings = AnyDoorSettings(),
        seed: int = 0,
    ) -> None:
        """Put the detail extractor beside the base, of which one half learns."""
        super().__init__(given)
        parts, data, id_encoder = given.parts, given.data, given.id_encoder
        if own.items and not hasattr(data, "item_mask"):
            raise SettingsError(
                f"anydoor.items is {own.items}, but the data has no masks of hats and clothes; set it to 0, or "
                "use data of kind world"
            )
        self.own, unet = own, parts.unet
        id_encoder.requires_grad_(False)
        self.tower = (
            SubjectTower.of_encoder(id_encoder) if own.tower == BUNDLED else SubjectTower.open(own.tower)
        )
        self.net = self.beside(new_detail_net(unet, own.hint).requires_grad_(True))
        for parameter in trained_part(unet):
            parameter.data = parameter.data.float()  # type: ignore[misc]
            parameter.requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projector = nn.Linear(self.tower.width, int(unet.config.cross_attention_dim))
        self._wearing: dict[str, dict[tuple[int, int], np.ndarray]] = {}

    def prepare(self, device: torch.device) -> None:
        """Move the frozen tower and text encoders."""
        super().prepare(device)
        self.tower.to(device)

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet, of which one half is trained, the detail extractor and the map of tokens."""
        return {"unet": self.parts.unet, "detail_net": self.net, "projector": self.projector}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the detail extractor, and the others, at their rates."""
        s = self.settings
        half = nn.ParameterList(
            [one for one in trained_part(self.parts.unet) if isinstance(one, nn.Parameter)]
        )
        return [
            *decayed_groups(self.net, s.lr, s.weight_decay),
            *decayed_groups(half, s.fusion_lr, s.weight_decay),
            *decayed_groups(self.projector, s.fusion_lr, s.weight_decay),
        ]

    def signature(self) -> dict[str, str]:
        """Base, data, sizes and tower; see `Recipe.signature`."""
        return {"sizes": str(list(self.own.hint)), "tower": self.own.tower, **self.origin}

    # ---- pairs

    def choose(self, row: int, rng: np.random.Generator) -> Pair:
        """Another picture of what is seen in a row: the person, or something that is worn."""
        if rng.random() < self.own.items:
            worn = [(kind, rows) for kind in ITEMS if len(rows := self._others_wearing(row, kind))]
            if worn:
                kind, rows = worn[int(rng.integers(len(worn)))]
                return Pair(row, int(rng.choice(rows)), kind)
        own = self.data.rows_of(int(self.data.person[row]))
        own = own[own != row]
        photos = own[self.data.is_photo[own]]
        return Pair(row, int(rng.choice(photos if len(photos) else own)))

    def _others_wearing(self, row: int, kind: str) -> np.ndarray:
        """Rows of other people who wear the same, in the same colour; none, where nothing is worn."""
        found = self._worn(kind).get(self._look(row, kind), np.zeros(0, dtype=np.int64))
        return found[self.data.person[found] != self.data.person[row]]

    def _look(self, row: int, kind: str) -> tuple[int, int]:
        attributes = self.data.attributes  # type: ignore[attr-defined]
        return int(attributes[kind][row]), int(attributes[f"{kind}_colour"][row])

    def _worn(self, kind: str) -> dict[tuple[int, int], np.ndarray]:
        """Photos by what is worn in them, and its colour."""
        if kind not in self._wearing:
            rows: dict[tuple[int, int], list[int]] = {}
            for row in np.flatnonzero(self.data.is_photo):
                look = self._look(int(row), kind)
                if look[1] >= 0:  # no hat has no colour
                    rows.setdefault(look, []).append(int(row))
            self._wearing[kind] = {look: np.array(each) for look, each in rows.items()}
        return self._wearing[kind]

    def mask(self, row: int, kind: str) -> np.ndarray:
        """Where a picture shows its subject: uint8 [h, w]; all of the person, where too little of a thing is seen."""
        if kind != PERSON:
            found = np.asarray(self.data.item_mask(row, kind))  # type: ignore[attr-defined]
            if int((found > 0).sum()) >= _LEAST:
                return found
        return np.asarray(self.data.masks[row])

    # ---- conditions

    def region(self, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The hole: a box around the subject, or its shape, roughened; uint8 [h, w]."""
        size = (mask.shape[1], mask.shape[0])
        box = grown(box_of(mask) or (0, 0, *size), size, float(rng.uniform(1.1, 1.2)))
        if rng.random() >= self.own.shape:
            return box_region(box, size)
        # a coarse shape tells no more than a hand would paint
        cells = int(rng.integers(8, 17))
        coarse = Image.fromarray(mask).resize((cells, cells), Image.Resampling.BOX)
        rough = np.asarray(coarse.resize(size, Image.Resampling.BILINEAR)) > 255 * rng.uniform(0.1, 0.4)
        return np.where(rough, 255, 0).astype(np.uint8)

    def subject(self, pair: Pair, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
        """The subject on white, and its high-frequency map."""
        mask = self.mask(pair.reference, pair.kind)
        picture = Image.fromarray(np.ascontiguousarray(self.data.images[pair.reference]))
        cut, inside = cut_subject(picture, mask if mask.any() else None, float(rng.uniform(*_ROOMS)))
        return cut, high_frequency(cut, inside)

    def told(self, pairs: Sequence[Pair], rng: np.random.Generator) -> Condition:
        """Tokens of the subjects, collages, and the holes as shares of latent cells."""
        subjects = [self.subject(pair, rng) for pair in pairs]
        hints, holes = [], []
        for pair, (_, details) in zip(pairs, subjects, strict=True):
            image = self.frames.picture(pair.target, np.asarray(self.data.images[pair.target]))
            mask = self.frames.picture(pair.target, self.mask(pair.target, pair.kind))
            region = self.region(mask, rng)
            scene = Image.fromarray(np.ascontiguousarray(image))
            hints.append(Hole(scene, region).hint(details, scene.size))
            holes.append(region)
        tokens = self._tokens([cut for cut, _ in subjects])
        nothing = self._tokens([Image.new("RGB", (8, 8))]).expand_as(tokens)
        hint = torch.stack(hints).to(self.device)
        more = {"tokens": tokens, "hint": hint, "hole": mask_map(np.stack(holes)).to(self.device)}
        count, unet = len(pairs), self.parts.unet.config
        pooled = int(unet.projection_class_embeddings_input_dim) - 6 * int(unet.addition_time_embed_dim)
        empty = torch.zeros(count, pooled, device=self.device)
        return Condition(tokens, empty, more, {"tokens": nothing, "hint": hint, "hole": more["hole"]})

    @torch.no_grad()
    def _tokens(self, pictures: Sequence[Image.Image]) -> Tensor:
        size = (self.tower.size, self.tower.size)
        seen = np.stack([np.asarray(one.resize(size, Image.Resampling.BICUBIC)) for one in pictures])
        pixels = torch.from_numpy(seen).permute(0, 3, 1, 2).float().to(self.device) / 255
        return self.tower(pixels).float()

    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """The first reference of each row in place of its own person; see `PeopleRecipe.condition`."""
        del captions, text_only
        return self.told([Pair(int(rows[0]), int(rows[0])) for rows in references], rng)

    # ---- the loss

    def predict(self, noised: Noised, condition: Condition) -> Tensor:
        """See `PeopleRecipe.predict`: the tokens stand for the text, and the detail extractor reads the collage."""
        tokens = self.projector(condition.more["tokens"])
        return self.followed(noised, condition, self.net, condition.more["hint"], tokens, tokens)

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Predict a picture's noise from its scene and another picture of its subject."""
        pairs = [self.choose(int(row), rng) for row in rows]
        keep = (~null_rows(len(rows), self.settings.diffusion.null_text, rng)).to(self.device)
        condition = self.told(pairs, rng).kept(keep)
        noised = self.noised(rows, generator)
        error = self.errors(noised, self.predict(noised, condition), self._weight(condition))
        items = sum(pair.kind != PERSON for pair in pairs) / len(pairs)
        return error.mean(), thirds(error.detach(), noised.steps) | {"items": items}

    def _weight(self, condition: Condition) -> Tensor:
        return 1 + (self.own.inside - 1) * condition.more["hole"]

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Measure the loss in the hole for unseen people, with their own photos and with a stranger's."""
        totals: dict[str, list[Tensor]] = {"loss": [], "loss_of_stranger": []}
        for rows in self._validated():
            own = [self.choose(int(row), np.random.default_rng([3, int(row)])) for row in rows]
            half = len(own) // 2
            seen = [pair.reference for pair in own]
            strange = [
                Pair(pair.target, other, PERSON)
                for pair, other in zip(own, seen[half:] + seen[:half], strict=True)
            ]
            own = [Pair(pair.target, pair.reference, PERSON) for pair in own]
            seed = int(rng.integers(2**62))
            for name, pairs in (("loss", own), ("loss_of_stranger", strange)):
                condition = self.told(pairs, np.random.default_rng([seed, 5]))
                noised = self.noised(rows, torch.Generator().manual_seed(seed))
                hole = condition.more["hole"]
                totals[name].append(self.errors(noised, self.predict(noised, condition), hole))
        return {name: float(torch.cat(parts).mean()) for name, parts in totals.items() if parts}

    def export(self, folder: Path) -> None:
        """Write the published layout."""
        notes = {**self.notes, "tower": self.own.tower, "zoom": 0.0}
        export_anydoor(folder / FILE, self.parts.unet, self.net, self.projector, notes)

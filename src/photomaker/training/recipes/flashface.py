"""Recipe of FlashFace: a reference UNet over crops of the face, and further self-attention that reads its feature maps.

Rows, noise, masks and loss are those of `training.people`. What differs from the paper, where it is not a setting: the
time embeddings stay the base's; the rows without a caption keep their photos in every other case, for the first steps,
which guide both together. Two settings may differ from it: the map of the face's place is left out of a share of the
rows, so that the text may place the face, and the reference UNet gets the caption in a share of them only, for at
inference it gets the negative prompt.

Source: arXiv 2403.17008, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from photomaker.encoders.flashface import export_flashface
from photomaker.errors import SettingsError
from photomaker.pipelines.attention.references import (
    Bank,
    crop_ids,
    photo_bias,
    placed,
    reading_layers,
    reading_processors,
    reference_unet,
    square_map,
)
from photomaker.training.data.latents import encoded
from photomaker.training.data.photos import face_crop, prepared_photo
from photomaker.training.data.texts import Caption
from photomaker.training.recipes.base import decayed_groups
from photomaker.training.recipes.people import Condition, Ingredients, Noised, PeopleRecipe

FILE = "flashface.safetensors"
_CELL = 8  # pixels of a latent cell
_MOST = 4  # photos that a row reads


@dataclass(frozen=True)
class FlashFaceTraining:
    """Settings specific to FlashFace.

    Of `AdapterSettings`, `lr` is the rate of the further attention and the face's place, `fusion_lr` that of the UNets,
    `photos` at most four, and `text_only` the share of rows without photos and place; `rank`, `vision` and `vision_lr`
    do nothing.

    Attributes:
        side: Pixels of a side of a face crop, a multiple of what the UNet halves.
        crop: Side of the face's square in longer sides of its box.
        target: What learns of the drawing UNet: `all`, as in the paper, or the `new` layers alone.
        no_place: Share of the rows with photos whose place is left open.
        captioned: Share of the rows whose caption the reference UNet gets.
        strength: Noted in the file; see `photomaker.methods.flashface.FlashFaceSettings`.
        reference: As `strength`.
        launch: As `strength`.

    Raises:
        SettingsError: A value is outside its range.
    """

    side: int = 224
    crop: float = 1.5
    target: Literal["all", "new"] = "all"
    no_place: float = 0.0
    captioned: float = 1.0
    strength: float = 0.85
    reference: float = 2.0
    launch: float = 750.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.side < _CELL or self.side % _CELL:
            raise SettingsError(f"side is {self.side}; give a multiple of {_CELL}")
        if self.crop <= 0:
            raise SettingsError(f"crop is {self.crop}; give a number above 0")
        for name in ("no_place", "captioned"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")


class FlashFaceRecipe(PeopleRecipe):
    """Trains FlashFace; see `PeopleRecipe`.

    Args:
        id_encoder: Not used; it stays as it is.
        own: What is FlashFace's own.

    Raises:
        SettingsError: More than four photos are asked for, crops that the UNet cannot halve, or gradient checkpointing.
    """

    name = "flashface"

    def __init__(
        self,
        given: Ingredients,
        *,
        own: FlashFaceTraining = FlashFaceTraining(),
    ) -> None:
        """Put the reference UNet and the new layers beside the base."""
        super().__init__(given)
        unet, settings, id_encoder = given.parts.unet, given.settings, given.id_encoder
        least = _CELL * 2 ** (len(unet.config.block_out_channels) - 1)
        if own.side % least:
            raise SettingsError(f"flashface.side is {own.side}; give a multiple of {least} for this base")
        if settings.gradient_checkpointing:
            raise SettingsError(
                "FlashFace reads feature maps of the forward pass, which gradient_checkpointing does not keep; switch "
                "it off"
            )
        if settings.photos > _MOST:
            raise SettingsError(f"recipe.photos is {settings.photos}; FlashFace reads at most {_MOST}")
        id_encoder.requires_grad_(False)
        plain = self.plain and not torch.cuda.is_available()
        self.own, self.bank = own, Bank()
        self.reference = reference_unet(unet, self.bank, plain).float()
        self.reference.requires_grad_(True)
        for part in unused(self.reference):
            part.requires_grad_(False)
        if own.target == "all":
            unet.float().requires_grad_(True)
            for part in (unet.time_embedding, unet.add_embedding):  # the file has one for both UNets
                part.requires_grad_(False)
            self.dtype = torch.float32
        self.processors = reading_processors(unet, self.bank, plain)
        for processor in self.processors.values():
            processor.self_attn_first.float().requires_grad_(True)
        unet.set_attn_processor({**unet.attn_processors, **self.processors})
        self.place = nn.Parameter(torch.zeros_like(unet.conv_in.weight[:, :1], dtype=torch.float32))
        self.new = nn.ParameterDict({"place": self.place})

    def modules(self) -> dict[str, nn.Module]:
        """Return both UNets and the first layer's part for the face's place."""
        return {"unet": self.parts.unet, "reference": self.reference, "new": self.new}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the new layers, and the UNets, each at their own rate."""
        s = self.settings
        second = nn.ModuleList(self.processors.values())
        new = {id(one) for one in second.parameters()}
        weights = [one for one in self.parts.unet.parameters() if one.requires_grad and id(one) not in new]
        base: list[dict[str, Any]] = []
        if weights:
            base = [
                {
                    "params": [one for one in weights if one.ndim > 1],
                    "lr": s.fusion_lr,
                    "weight_decay": s.weight_decay,
                },
                {
                    "params": [one for one in weights if one.ndim <= 1],
                    "lr": s.fusion_lr,
                    "weight_decay": 0.0,
                },
            ]
        return [
            *decayed_groups(second, s.lr, s.weight_decay),
            {"params": [self.place], "lr": s.lr, "weight_decay": 0.0},
            *decayed_groups(self.reference, s.fusion_lr, s.weight_decay),
            *base,
        ]

    def signature(self) -> dict[str, str]:
        """Base, data and sizes; see `Recipe.signature`."""
        return {"sizes": str([self.own.side, self.own.crop, self.own.target]), **self.origin}

    def prepare(self, device: torch.device) -> None:
        """Move the frozen text encoders and the autoencoder, which reads the crops."""
        super().prepare(device)
        self.parts.autoencoder.to(device)

    # ---- the photos

    def crops(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Latents of the faces in pictures [photos, channels, h, w]."""
        plain = replace(self.settings.photo, noise=0.0, grey=0.0, shift=0)
        found = []
        for row in rows:
            image, mask = np.asarray(self.data.images[int(row)]), np.asarray(self.data.masks[int(row)])
            photo = prepared_photo(image, mask, plain, rng)
            found.append(
                face_crop(photo, np.asarray(self.data.boxes[int(row)]), self.own.crop, rng, self.own.side)
            )
        pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous() / 127.5 - 1
        return torch.from_numpy(encoded(self.parts.autoencoder, pixels)).float()

    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """The prompt's text alone, the crops' latents, and how much each counts; see `PeopleRecipe.condition`."""
        encoded_text = self.texts(captions, [1] * len(captions), self.device)
        latents = self.crops(np.concatenate(references), rng)
        filled, bias = [], []
        for seen, dropped in zip(
            latents.split([len(rows) for rows in references]), text_only.tolist(), strict=True
        ):
            count, missing = len(seen), _MOST - len(seen)
            filled.append(torch.cat([seen, seen[:1].expand(missing, -1, -1, -1)]))
            own = photo_bias(torch.full((count,), 1 / count))
            nothing = torch.full((_MOST,), -torch.inf)
            bias.append(nothing if dropped else torch.cat([own, nothing[:missing]]))
        # 1 if the place is given
        told = torch.from_numpy((rng.random(len(captions)) >= self.own.no_place) & ~text_only).float()
        photos, looks = torch.stack(filled).to(self.device), torch.stack(bias).to(self.device)
        keeps = torch.from_numpy(rng.random(len(captions)) < 0.5).to(self.device)[:, None]  # noqa: PLR2004 - half
        captioned = torch.from_numpy(rng.random(len(captions)) < self.own.captioned).float()
        more = {"photos": photos, "bias": looks, "told": told.to(self.device)}
        more["captioned"] = captioned.to(self.device)
        nothing_told = {"photos": photos, "bias": torch.where(keeps, looks, -torch.inf)}
        return Condition(encoded_text.embeds.float(), encoded_text.pooled, more, nothing_told)

    def maps(self, rows: np.ndarray) -> Tensor:
        """Where the faces are [batch, 1, h, w]."""
        high, wide = (int(side) // _CELL for side in self.frames.targets[rows[0]])
        return torch.stack([square_map(box / _CELL, high, wide) for box in self.frames.boxes(rows)])

    def predict(self, noised: Noised, condition: Condition) -> Tensor:
        """See `PeopleRecipe.predict`, with the photos read at the same noise level."""
        photos = condition.more["photos"]
        rows, most = photos.shape[:2]
        latents = photos.flatten(0, 1)
        told = condition.more["captioned"]
        words, pooled = (
            (one * told.view(-1, *[1] * (one.dim() - 1))).repeat_interleave(most, dim=0)
            for one in (condition.embeds, condition.pooled)
        )
        added = {"text_embeds": pooled, "time_ids": crop_ids(latents).to(self.device)}
        self.reference(
            latents,
            noised.steps.repeat_interleave(most),
            encoder_hidden_states=words,
            added_cond_kwargs=added,
            return_dict=False,
        )
        bank = self.bank
        bank.index = torch.arange(rows * most, device=self.device).view(rows, most)
        bank.bias, bank.strength = condition.more["bias"], torch.ones(rows)
        maps = self.maps(noised.rows).to(self.device) * condition.more["told"].view(-1, 1, 1, 1)
        with placed(self.parts.unet, self.place, lambda _rows: maps):
            return super().predict(noised, condition)

    def export(self, folder: Path) -> None:
        """Write the published layout."""
        second = {
            name.removesuffix(".processor"): dict(one.self_attn_first.named_parameters())
            for name, one in self.processors.items()
        }
        own = asdict(self.own)
        notes: dict[str, Any] = {"side": self.own.side, "crop": self.own.crop}
        notes["flashface"] = {name: own[name] for name in ("strength", "reference", "launch")}
        export_flashface(
            folder / FILE, self.parts.unet, self.reference, second, self.place, {**self.notes, **notes}
        )


def unused(unet: Any) -> list[nn.Module]:  # noqa: ANN401 - a diffusers UNet
    """Parts of a reference UNet behind the last layer that is read, and its time embedding, which is the base's."""
    last = reading_layers(unet)[-1]
    block, transformer = last.removesuffix(".attn1"), last.split(".transformer_blocks.")[0]
    number = int(last.split(".")[1])
    found = [unet.get_submodule(f"{block}.{part}") for part in ("attn1", "norm2", "attn2", "norm3", "ff")]
    found += [unet.get_submodule(f"{transformer}.proj_out"), unet.conv_norm_out, unet.conv_out]
    found += [unet.time_embedding, unet.add_embedding]
    found += [unet.up_blocks[number].upsamplers or nn.Identity(), *unet.up_blocks[number + 1 :]]
    return found

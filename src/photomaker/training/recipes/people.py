"""Shared by all recipes for many people: rows, photos, captions, noise, masks, the loss.

A recipe says what it adds to the frozen base, how photos and captions become a condition, and how the UNet is asked.

Source: PhotoMaker, arXiv 2312.04461, section 4.1: 1 to 4 ID photos of the same person as the target (here never the
target itself, unless asked for), backgrounds of ID photos filled with noise, 10 % empty conditions, half of the losses
restricted to the person.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError
from photomaker.prompts.trigger import TRIGGER
from photomaker.training.data import photos as photo_defaults
from photomaker.training.data.dataset import SIZE, Album, box_map, mask_map
from photomaker.training.data.frames import Frames
from photomaker.training.data.latents import Latents
from photomaker.training.data.photos import PhotoSettings, draw_photos, draw_references, photo_tensor
from photomaker.training.data.texts import Caption, Texts
from photomaker.training.losses.diffusion import (
    LossSettings,
    Noising,
    null_rows,
    use_plain_attention,
    weighted_error,
)
from photomaker.training.recipes.base import BaseParts, decayed_groups, thirds
from photomaker.training.running.recipe import Preview, Recipe

_CELL = 8  # pixels of a latent cell

PLAIN_TOKENS = 1024
"""Latent cells up to which attention by plain matrix products is taken on a CPU; more would need too much memory."""

VALIDATED = 32 * SIZE**2
"""Pixels of the pictures that are validated at once."""


@dataclass(frozen=True)
class AdapterSettings:
    """How the adapter is trained; the defaults are the paper's, section 4.1, for SDXL.

    Attributes:
        rank: Rank of the LoRA; its alpha is the same, so that its scale is 1.
        lr: Peak learning rate of the LoRA.
        fusion_lr: Peak learning rate of the projections and the fusion.
        vision_lr: Peak learning rate of the image encoder.
        vision: How much of the image encoder is trained: all, none, or a number of its last layers.
        weight_decay: AdamW's, on matrices.
        photos: Most ID photos of a row, 1 or more.
        target_among: Whether the target may be drawn among its own ID photos, like any other picture of the person.
        masked: Share of rows whose loss counts the person only.
        plain_captions: Share of captions that leave all appearance to the photos, where captions are rewritten each
            time.
        text_only: Share of rows trained without photos, for the phase before merging.
        stack: What becomes of several photos: a token each ("stacked", the method), their "average", or one embedding
            of learned shares ("linear").
        class_word: Whether the class word's text features are fused with the photos'.
        attention: Weight of a loss that has the person's places look at the person's tokens, see
            `training.attention.person_attention_loss`; 0, the paper's, switches it off. For PhotoMaker alone.
        attention_share: Share of attention from which on that loss is 0.
        gradient_checkpointing: Whether activations are computed again in the backward pass instead of kept.
        validation_rows: Most rows whose loss is measured at each checkpoint.
        photo: What becomes of the ID photos.
        diffusion: Timesteps and loss weights.

    Raises:
        SettingsError: A value is outside its range.
    """

    rank: int = 64
    lr: float = 1e-4
    fusion_lr: float = 1e-5
    vision_lr: float = 1e-5
    vision: Literal["all", "none"] | int = "all"
    weight_decay: float = 0.01
    photos: int = 4
    target_among: bool = False
    masked: float = 0.5
    plain_captions: float = 0.8
    text_only: float = 0.0
    stack: Literal["stacked", "average", "linear"] = "stacked"
    class_word: bool = True
    attention: float = 0.0
    attention_share: float = 0.5
    gradient_checkpointing: bool = False
    validation_rows: int = 256
    photo: PhotoSettings = field(default_factory=PhotoSettings)
    diffusion: LossSettings = field(default_factory=LossSettings)

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("rank", "photos"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a whole number from 1 up")
        for name in ("masked", "plain_captions", "text_only"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")
        for name in ("lr", "fusion_lr", "vision_lr", "attention"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a number from 0 up")
        if not 0 < self.attention_share <= 1:
            raise SettingsError(f"attention_share is {self.attention_share}; give a share above 0, up to 1")
        if self.attention and self.gradient_checkpointing:
            raise SettingsError(
                "the loss on attention needs the attention of the forward pass, which gradient_checkpointing does not "
                "keep; switch one of them off"
            )
        if not isinstance(self.vision, str) and self.vision < 1:
            raise SettingsError(f"vision is {self.vision}; give all, none, or a number of layers from 1 up")


SMALL = AdapterSettings(
    rank=20, lr=1e-3, fusion_lr=5e-4, vision_lr=1e-4, text_only=0.1, photo=photo_defaults.SMALL,
    diffusion=LossSettings(face=2.0),
)  # fmt: skip
"""Settings for the bundled small base."""


@dataclass(frozen=True)
class Condition:
    """The conditions of the UNet.

    Attributes:
        embeds: Prompt embeddings [batch, 77, D].
        pooled: [batch, P].
        more: Further tensors of a method's own [batch, ...].
        nothing: What rows without a condition have in place of `more`; zeros where it is not named.
    """

    embeds: Tensor
    pooled: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)
    nothing: Mapping[str, Tensor] = field(default_factory=dict)

    def kept(self, keep: Tensor) -> Condition:
        """The same with an empty condition in the rows that are not kept; keep: bool [batch]."""
        more = {
            name: torch.where(
                keep.view(-1, *[1] * (value.dim() - 1)),
                value,
                self.nothing.get(name, torch.zeros_like(value)),
            )
            for name, value in self.more.items()
        }
        return replace(
            self, embeds=self.embeds * keep[:, None, None], pooled=self.pooled * keep[:, None], more=more
        )


@dataclass(frozen=True)
class Noised:
    """A batch of noisy latents.

    Attributes:
        rows: Dataset rows [batch].
        clean: Latents [batch, channels, h, w].
        noisy: The same with noise.
        steps: Timesteps [batch].
        target: What is to be predicted.
        weight: Weight of each row [batch, 1, 1, 1].
    """

    rows: np.ndarray
    clean: Tensor
    noisy: Tensor
    steps: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Ingredients:
    """What a recipe that trains on pictures of people is given.

    Attributes:
        data: Pictures, masks, captions, people.
        latents: Of the same rows, from the base's autoencoder.
        parts: The base; it stays as it is except for what the recipe adds to its UNet.
        id_encoder: The ID encoder, whose image tower sees the photos.
        settings: How.
        held_out: People kept for validation, the last ones.
        frames: How pictures were brought to the latents' sizes; None is for the synthetic people as they are.
        texts: Captions through the text encoders; None encodes them each time.
    """

    data: Album
    latents: Latents
    parts: BaseParts
    id_encoder: PhotoMakerIDEncoder
    settings: AdapterSettings = field(default_factory=lambda: SMALL)
    held_out: int = 100
    frames: Frames | None = None
    texts: Texts | None = None


class PeopleRecipe(Recipe):
    """Trains something around a frozen base on pictures of people.

    Args:
        given: What it is given.

    Attributes:
        previewer: Makes the pictures of `preview`; None makes none.
        origin: What else a checkpoint must agree with, see `signature`.
        notes: Noted in the exported file.

    Raises:
        SettingsError: Nobody has two pictures.
        WeightsError: The base's scheduler is of no known kind.
    """

    name = "people"

    def __init__(
        self,
        given: Ingredients,
    ) -> None:
        """Freeze the base."""
        data, parts, settings = given.data, given.parts, given.settings
        self.data, self.latents, self.parts, self.settings = data, given.latents, parts, settings
        self.id_encoder = given.id_encoder
        self.frames = Frames.of_the_world(data.boxes) if given.frames is None else given.frames
        self.texts = Texts(parts) if given.texts is None else given.texts
        self.noising = Noising(settings.diffusion, parts.scheduler)
        self.previewer: Callable[[], Preview] | None = None
        self.origin: dict[str, str] = {}
        self.notes: dict[str, Any] = {}
        self._split(given.held_out)
        for model in (parts.unet, *parts.text_encoders, parts.autoencoder):
            model.requires_grad_(False)
            model.eval()
        self.dtype = parts.unet.dtype
        if settings.gradient_checkpointing:
            parts.unet.enable_gradient_checkpointing()
        self.plain = int(np.prod(self.frames.targets, axis=1).max()) <= PLAIN_TOKENS * _CELL**2
        if self.plain:
            use_plain_attention(parts.unet, given.id_encoder)

    @property
    def pair(self) -> np.ndarray:
        """Bool [rows of the data], whether a picture shows two people."""
        return getattr(self.data, "pair", np.zeros(len(self.data.person), dtype=bool))

    def _split(self, held_out: int) -> None:
        """Choose the rows trained on and those held out, of people with enough pictures."""
        people = self.data.person
        enough = np.bincount(people)[people] > (0 if self.settings.target_among else 1)
        self.single = int((~enough).sum())
        if not enough.any():
            raise SettingsError(
                f"no person in the data has two pictures ({self.single} people have one each); add photos, or set "
                "target_among to true"
            )
        everyone = int(people.max()) + 1
        kept = everyone - min(held_out, everyone // 4)
        self._rows = np.flatnonzero(enough & (people < kept))
        self._held_out = np.flatnonzero(enough & (people >= kept) & ~self.pair)[
            : self.settings.validation_rows
        ]

    def prepare(self, device: torch.device) -> None:
        """Move the frozen text encoders, where captions are encoded again."""
        super().prepare(device)
        self.texts.prepare(device)

    @property
    def rows(self) -> np.ndarray:
        """Pictures of the training people."""
        return self._rows

    @property
    def held_out(self) -> np.ndarray:
        """Pictures of people that are not trained on."""
        return self._held_out

    @property
    def groups(self) -> np.ndarray:
        """Size of each picture: those of a step are alike."""
        return self.frames.buckets[self._rows]

    def signature(self) -> dict[str, str]:
        """Base and data; see `Recipe.signature`."""
        return dict(self.origin)

    def _caption(self, row: int, rng: np.random.Generator) -> Caption:
        plain = rng.random() < self.settings.plain_captions
        return self.data.caption(row, rng, 0.0 if plain else float(rng.uniform(0.3, 1.0)), TRIGGER)

    def photos(self, references: list[np.ndarray], rng: np.random.Generator) -> Tensor:
        """Normalised photos [photos, 3, size, size] of all rows, one row after the other, on the device.

        Args:
            references: Dataset rows of each row's ID photos.
            rng: Randomness of the photos' backgrounds.
        """
        size = int(self.id_encoder.config.image_size)
        rows = np.concatenate(references)
        return photo_tensor(self.data, rows, self.settings.photo, rng, size).to(self.device)

    @abstractmethod
    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """The conditions of the UNet, built exactly as at inference.

        Args:
            captions: With trigger.
            references: Dataset rows of each row's ID photos.
            text_only: Bool [batch], rows whose photos are not used.
            rng: Randomness of the photos' backgrounds.
        """

    def added(self, condition: Condition) -> dict[str, Any]:
        """Further entries of the UNet's `added_cond_kwargs`."""
        del condition
        return {}

    def further(
        self, noised: Noised, predicted: Tensor, condition: Condition
    ) -> tuple[Tensor, dict[str, float]]:
        """Losses of the method's own, summed, and figures for the log."""
        del noised, condition
        return predicted.new_zeros(()), {}

    def noised(self, rows: np.ndarray, generator: torch.Generator) -> Noised:
        """Latents of `rows` at random timesteps."""
        clean = torch.from_numpy(np.asarray(self.latents[rows], dtype=np.float32)).to(self.device)
        noisy, steps, target, weight = self.noising(clean, generator)
        return Noised(rows, clean, noisy, steps, target, weight)

    def predict(self, noised: Noised, condition: Condition) -> Tensor:
        """What the UNet predicts [batch, channels, h, w]."""
        added = {
            "text_embeds": condition.pooled.to(self.dtype),
            "time_ids": self.frames.time_ids(noised.rows).to(self.device),
        }
        return self.parts.unet(
            noised.noisy.to(self.dtype),
            noised.steps,
            encoder_hidden_states=condition.embeds.to(self.dtype),
            added_cond_kwargs=added | self.added(condition),
            return_dict=False,
        )[0]

    def token_rates(self, layers: Iterable[nn.Module], maker: nn.Module) -> list[dict[str, Any]]:
        """Groups of layers that read a person's tokens, at `lr`, and of what makes these, at `fusion_lr`."""
        s = self.settings
        return [
            *decayed_groups(nn.ModuleList(layers), s.lr, 0.0),
            *decayed_groups(maker, s.fusion_lr, s.weight_decay),
        ]

    def beside(self, net: Any) -> Any:  # noqa: ANN401 - a diffusers ControlNet
        """A network that learns beside the base, with attention and memory as the base's."""
        if self.plain:
            use_plain_attention(net)
        if self.settings.gradient_checkpointing:
            net.enable_gradient_checkpointing()
        return net

    def followed(
        self,
        noised: Noised,
        condition: Condition,
        net: Any,  # noqa: ANN401 - a diffusers ControlNet
        structure: Tensor,
        words: Tensor,
        read: Tensor,
    ) -> Tensor:
        """The prediction of the base with what a network beside it adds.

        Args:
            noised: The noised pictures.
            condition: Whose pooled embeddings and further parts both get.
            net: A ControlNet of the base.
            structure: What it follows [batch, 3, h, w] in 0..1.
            words: Embeddings [batch, length, D] that the base reads.
            read: Those that the network reads.
        """
        noisy, words = noised.noisy.to(self.dtype), words.to(self.dtype)
        added = {
            "text_embeds": condition.pooled.to(self.dtype),
            "time_ids": self.frames.time_ids(noised.rows).to(self.device),
        }
        down, middle = net(
            noisy,
            noised.steps,
            encoder_hidden_states=read.to(self.dtype),
            controlnet_cond=structure.to(self.device, self.dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )
        return self.parts.unet(
            noisy,
            noised.steps,
            encoder_hidden_states=words,
            added_cond_kwargs=added | self.added(condition),
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]

    def errors(self, noised: Noised, predicted: Tensor, weight: Tensor) -> Tensor:
        """Loss of each row [batch] under `weight` [batch, 1, h, w]."""
        return weighted_error(predicted, noised.target, weight.to(self.device)) * noised.weight[:, 0, 0, 0]

    def weight(self, rows: np.ndarray, masked: np.ndarray) -> Tensor:
        """Weights of latent cells [batch, 1, h, w]: the face more; where `masked` [batch] nothing but the person."""
        high, wide = (int(side) // _CELL for side in self.frames.targets[rows[0]])
        weight = 1 + (self.settings.diffusion.face - 1) * box_map(self.frames.boxes(rows), (high, wide))
        if not masked.any():
            return weight
        return torch.where(torch.from_numpy(masked)[:, None, None, None], weight * self.person(rows), weight)

    def person(self, rows: np.ndarray) -> Tensor:
        """The person's share of each latent cell [batch, 1, h, w], on the CPU."""
        masks = [self.frames.picture(int(row), np.asarray(self.data.masks[int(row)])) for row in rows]
        return mask_map(np.stack(masks))

    def _references(self, rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        s, found = self.settings, []
        for row in rows:
            if self.pair[row]:
                each = self.data.people_of(int(row))  # type: ignore[attr-defined]
                drawn = [draw_photos(self.data, one, s.photos, s.photo, rng) for one in each]
                found.append(np.concatenate(drawn))
            else:
                found.append(draw_references(self.data, int(row), s.photos, s.photo, rng, s.target_among))
        return found

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Predict a picture's noise under its caption and other photos of the same person."""
        settings, count = self.settings, len(rows)
        references = self._references(rows, rng)
        captions = [self._caption(int(row), rng) for row in rows]
        text_only = rng.random(count) < settings.text_only
        condition = self.condition(captions, references, text_only, rng)
        keep = (~null_rows(count, settings.diffusion.null_text, rng)).to(self.device)
        condition = condition.kept(keep)
        masked = rng.random(count) < settings.masked
        noised = self.noised(rows, generator)
        predicted = self.predict(noised, condition)
        error = self.errors(noised, predicted, self.weight(rows, masked))
        more, figures = self.further(noised, predicted, condition)
        return error.mean() + more, thirds(error.detach(), noised.steps) | figures

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Measure the person's loss for unseen people, with their own photos and with a stranger's."""
        totals: dict[str, list[Tensor]] = {"loss": [], "loss_of_stranger": []}
        for rows in self._validated():
            own = self._references(rows, rng)
            captions = [self._caption(int(row), rng) for row in rows]
            weight = self.weight(rows, np.ones(len(rows), dtype=bool))
            seed = int(rng.integers(2**62))
            half = len(own) // 2
            for name, references in (("loss", own), ("loss_of_stranger", own[half:] + own[:half])):
                condition = self.condition(captions, references, np.zeros(len(rows), dtype=bool), rng)
                noised = self.noised(rows, torch.Generator().manual_seed(seed))
                totals[name].append(self.errors(noised, self.predict(noised, condition), weight))
        return {name: float(torch.cat(parts).mean()) for name, parts in totals.items() if parts}

    def _validated(self) -> list[np.ndarray]:
        """Held-out rows in parts of one size of picture, two or more where there are as many."""
        parts = []
        for bucket in np.unique(self.frames.buckets[self._held_out]):
            rows = self._held_out[self.frames.buckets[self._held_out] == bucket]
            at_once = max(2, VALIDATED // int(self.frames.targets[rows[0]].prod()))
            parts += np.array_split(rows, max(1, len(rows) // at_once))
        return parts

    def preview(self) -> Preview | None:
        """Pictures of held-out people, where something to make them was put into `previewer`."""
        return None if self.previewer is None else self.previewer()


def mean_of_photos(each: Tensor, references: Sequence[np.ndarray]) -> Tensor:
    """What was made of all photos [photos, ...] as the mean of each row's own [batch, ...]."""
    return torch.stack([one.mean(0) for one in each.split([len(rows) for rows in references])])


def check_layers(setting: str, layers: Sequence[int], tower: ImageTower) -> None:
    """Refuse layers that an image tower has not.

    Raises:
        SettingsError: One of them is not there.
    """
    if not tower.has(layers):
        depth = int(tower.config.num_hidden_layers)
        raise SettingsError(
            f"{setting} is {list(layers)} and the image tower has {depth} layers; give others"
        )

"""Recipe of the PhotoMaker adapter: a frozen base, LoRA on its attention, the ID encoder and the fusion.

One recipe for all sizes: the bundled small model and full SDXL, V1 and V2. The noise schedule and what is predicted
come from the base's own scheduler; the data may be the synthetic people or shards of photos of any sizes.

Source: PhotoMaker, arXiv 2312.04461, section 3.2 and 4.1: 1 to 4 ID photos of the same person as the target (here never
the target itself, unless asked for), backgrounds of ID photos filled with noise, 10 % empty conditions, half of the
losses restricted to the person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from photomaker.encoders.adapter_file import export_adapter
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.errors import SettingsError, WeightsError
from photomaker.pipelines.fitting import check_lora
from photomaker.prompts.trigger import TRIGGER
from photomaker.training import photos as photo_defaults
from photomaker.training.base import BaseParts, decayed_groups, thirds
from photomaker.training.data import SIZE, Album, box_map, mask_map
from photomaker.training.diffusion import (
    LossSettings,
    Noising,
    null_rows,
    use_plain_attention,
    weighted_error,
)
from photomaker.training.frames import Frames
from photomaker.training.latents import Latents
from photomaker.training.loop import Preview, Recipe
from photomaker.training.photos import PhotoSettings, draw_references, photo_tensor
from photomaker.training.texts import Caption, Texts

FILE = "photomaker.safetensors"
_CELL = 8  # pixels of a latent cell
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


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
        plain_captions: Share of captions that leave all appearance to the photos, where captions are written anew each
            time.
        text_only: Share of rows trained without photos, for the phase before merging.
        stack: What becomes of several photos: a token each ("stacked", the method), their "average", or one embedding
            of learned shares ("linear").
        class_word: Whether the class word's text features are fused with the photos'.
        gradient_checkpointing: Whether activations are computed again in the backward pass instead of kept.
        validation_rows: Most rows whose loss is measured at each checkpoint.
        photo: What becomes of the ID photos.
        diffusion: Timesteps and loss weights.

    Raises:
        SettingsError: A value lies outside its range.
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
        for name in ("lr", "fusion_lr", "vision_lr"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a number from 0 up")
        if not isinstance(self.vision, str) and self.vision < 1:
            raise SettingsError(f"vision is {self.vision}; give all, none, or a number of layers from 1 up")


SMALL = AdapterSettings(
    rank=20, lr=1e-3, fusion_lr=5e-4, vision_lr=1e-4, text_only=0.1, photo=photo_defaults.SMALL,
    diffusion=LossSettings(face=2.0),
)  # fmt: skip
"""Settings for the bundled small base."""


class AdapterRecipe(Recipe):
    """Trains LoRA and ID encoder around a frozen base.

    What is trained is held in float32, whatever the precision of the base.

    Args:
        data: Pictures, masks, captions, people.
        latents: Of the same rows, from the base's autoencoder.
        parts: The base; its UNet gets LoRA layers, nothing else of it changes.
        id_encoder: The ID encoder.
        settings: How.
        held_out: People kept for validation, the last ones.
        lora: LoRA weights to go on from, as an adapter file names them; with them goes their own `id_encoder`. None
            starts a new adapter.
        frames: Sizes of the pictures; None is that of the synthetic people.
        texts: What encodes captions; None does so with the base's text encoders each time.
        faces: Face embeddings of all rows [rows, width], for a V2 encoder.

    Attributes:
        previewer: Makes the pictures of `preview`; None makes none.
        origin: What else a checkpoint must agree with, see `signature`.
        notes: Noted in the exported file.

    Raises:
        SettingsError: Nobody has two pictures, or face embeddings are missing.
        WeightsError: The base, the ID encoder and the LoRA do not fit one another.
    """

    name = "adapter"

    def __init__(
        self,
        data: Album,
        latents: Latents,
        parts: BaseParts,
        id_encoder: PhotoMakerIDEncoder,
        settings: AdapterSettings = SMALL,
        held_out: int = 100,
        lora: Mapping[str, Tensor] | None = None,
        *,
        frames: Frames | None = None,
        texts: Texts | None = None,
        faces: np.ndarray | None = None,
    ) -> None:
        """Freeze the base and add the LoRA layers."""
        self.data, self.latents, self.parts, self.settings = data, latents, parts, settings
        self.id_encoder, self.faces = id_encoder, faces
        self.frames = Frames.of_the_world(data.boxes) if frames is None else frames
        self.texts = Texts(parts) if texts is None else texts
        self.noising = Noising(settings.diffusion, parts.scheduler)
        self.previewer: Callable[[], Preview] | None = None
        self.origin: dict[str, str] = {}
        self.notes: dict[str, Any] = {}
        id_encoder.arrange(settings.stack, settings.class_word)
        self._check(lora)
        self._split(held_out)
        self._add_lora()
        self._freeze_encoder()
        if int(np.prod(self.frames.targets, axis=1).max()) <= PLAIN_TOKENS * _CELL**2:
            use_plain_attention(parts.unet, id_encoder)
        if lora is None:
            self._match_scale()
        else:
            state = {name.removeprefix("unet."): tensor.float() for name, tensor in lora.items()}
            set_peft_model_state_dict(
                parts.unet, convert_unet_state_dict_to_peft(state), adapter_name="photomaker"
            )

    def _check(self, lora: Mapping[str, Tensor] | None) -> None:
        """See whether the pieces fit."""
        encoder, width = self.id_encoder, int(self.parts.unet.config.cross_attention_dim)
        if width != encoder.width:
            raise WeightsError(
                f"the base takes text of width {width} and the ID encoder is for width {encoder.width}; give a base "
                "and an ID encoder that belong together"
            )
        if encoder.needs_faces and self.faces is None:
            raise SettingsError("a V2 adapter needs a face embedding of every photo, and the data has none")
        if lora is not None:
            check_lora(self.parts.unet, lora, "the given adapter")
            rank = min(len(tensor) for name, tensor in lora.items() if ".down." in name)
            if rank != self.settings.rank:
                raise SettingsError(
                    f"rank is {self.settings.rank} and the adapter to go on from has {rank}; give its own rank"
                )

    def _split(self, held_out: int) -> None:
        """Choose the rows trained on and those held out, of people with enough pictures."""
        people = self.data.person
        enough = np.bincount(people)[people] > (0 if self.settings.target_among else 1)
        self.single = int((~enough).sum())
        if not enough.any():
            raise SettingsError(
                f"nobody in the data has two pictures ({self.single} people have one each); add photos, or set "
                "target_among to true"
            )
        everyone = int(people.max()) + 1
        kept = everyone - min(held_out, everyone // 4)
        self._rows = np.flatnonzero(enough & (people < kept))
        self._held_out = np.flatnonzero(enough & (people >= kept))[: self.settings.validation_rows]

    def _add_lora(self) -> None:
        """Freeze the base and add LoRA layers in float32."""
        unet, settings = self.parts.unet, self.settings
        for model in (unet, *self.parts.text_encoders, self.parts.autoencoder):
            model.requires_grad_(False)
            model.eval()
        self.dtype = unet.dtype
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.rank,
            target_modules=list(ATTENTION),
            init_lora_weights="gaussian",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.rank)  # the start of the LoRA is part of the recipe
            unet.add_adapter(config, adapter_name="photomaker")
        for parameter in unet.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if settings.gradient_checkpointing:
            unet.enable_gradient_checkpointing()

    def _freeze_encoder(self) -> None:
        """Leave trainable what the settings say; what V2 never uses is not trained either."""
        encoder, wanted = self.id_encoder, self.settings.vision
        if encoder.needs_faces:
            encoder.visual_projection.requires_grad_(False)
            encoder.visual_projection_2.requires_grad_(False)
        if wanted == "none":
            encoder.vision_model.requires_grad_(False).to(self.dtype)
            return
        if wanted != "all":
            layers = encoder.vision_model.encoder.layers
            if wanted > len(layers):
                raise SettingsError(
                    f"vision is {wanted} and the image encoder has {len(layers)} layers; give fewer"
                )
            encoder.vision_model.requires_grad_(False)
            for layer in layers[-wanted:]:
                layer.requires_grad_(True)
            encoder.vision_model.post_layernorm.requires_grad_(not encoder.needs_faces)
        if self.settings.gradient_checkpointing:
            encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @torch.no_grad()
    def _match_scale(self) -> None:
        """Let the fusion's last LayerNorm start at the size of class-word features, which the frozen UNet knows."""
        rng = np.random.default_rng(0)
        texts = [self._caption(int(row), rng) for row in self._rows[:: max(1, len(self._rows) // 64)][:64]]
        encoded = Texts(self.parts)(texts, [1] * len(texts), self.parts.text_encoders[0].device)
        class_rows = encoded.embeds[encoded.class_tokens]
        self.id_encoder.fuse_module.layer_norm.weight.fill_(float(class_rows.float().std(dim=-1).mean()))

    def prepare(self, device: torch.device) -> None:
        """Move the frozen text encoders, where captions are encoded anew."""
        super().prepare(device)
        self.texts.prepare(device)

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet, of which only LoRA is trained, and the ID encoder."""
        return {"unet": self.parts.unet, "id_encoder": self.id_encoder}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return LoRA, fusion with projections, and image encoder, each at its own rate."""
        s, encoder = self.settings, self.id_encoder
        fresh = nn.ModuleList([part for name, part in encoder.named_children() if name != "vision_model"])
        return [
            *decayed_groups(self.parts.unet, s.lr, 0.0),
            *decayed_groups(fresh, s.fusion_lr, s.weight_decay),
            *decayed_groups(encoder.vision_model, s.vision_lr, s.weight_decay),
        ]

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
        """Base, version and rank; see `Recipe.signature`."""
        return {"version": self.id_encoder.version, "rank": str(self.settings.rank), **self.origin}

    def _caption(self, row: int, rng: np.random.Generator) -> Caption:
        plain = rng.random() < self.settings.plain_captions
        return self.data.caption(row, rng, 0.0 if plain else float(rng.uniform(0.3, 1.0)), TRIGGER)

    def id_features(self, references: list[np.ndarray], rng: np.random.Generator) -> Tensor:
        """ID features of ragged rows, padded by zeros.

        Args:
            references: Dataset rows of each row's ID photos.
            rng: Randomness of the photos' backgrounds.

        Returns:
            [batch, most photos of a row, D], for V2 [batch, most photos, tokens, D]; one embedding in the place of the
            photos where they are not stacked.
        """
        counts, rows = [len(rows) for rows in references], np.concatenate(references)
        size = int(self.id_encoder.config.image_size)
        photos = photo_tensor(self.data, rows, self.settings.photo, rng, size)
        inputs = [photos] if self.faces is None else [photos, torch.from_numpy(self.faces[rows])]
        features = self.id_encoder.encode_photos(*(one[:, None].to(self.device) for one in inputs))[:, 0]
        padded = nn.utils.rnn.pad_sequence(list(features.split(counts)), batch_first=True)
        places = torch.arange(padded.shape[1], device=self.device)
        there = places < torch.tensor(counts, device=self.device)[:, None]
        return self.id_encoder.composed(padded, there.to(padded.dtype))[0]

    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Prompt embeddings [batch, 77, D] and pooled [batch, P], built exactly as at inference.

        Args:
            captions: With trigger.
            references: Dataset rows of each row's ID photos.
            text_only: Bool [batch], rows whose photos are not used.
            rng: Randomness of the photos' backgrounds.
        """
        each = self.id_encoder.num_tokens
        copies = [
            1 if plain else each * (len(rows) if self.id_encoder.stacks else 1)
            for rows, plain in zip(references, text_only, strict=True)
        ]
        encoded = self.texts(captions, copies, self.device)
        mask = encoded.class_tokens & ~torch.from_numpy(text_only).to(self.device)[:, None]
        embeds = self.id_encoder.fuse(encoded.embeds.float(), self.id_features(references, rng), mask)
        return embeds, encoded.pooled

    def errors(
        self, rows: np.ndarray, condition: tuple[Tensor, Tensor], weight: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss of each row [batch] under `weight` [batch, 1, h, w] and its timestep [batch]."""
        clean = torch.from_numpy(np.asarray(self.latents[rows], dtype=np.float32)).to(self.device)
        noisy, steps, target, row_weight = self.noising(clean, generator)
        embeds, pooled = condition
        added = {"text_embeds": pooled.to(self.dtype), "time_ids": self.frames.time_ids(rows).to(self.device)}
        predicted = self.parts.unet(
            noisy.to(self.dtype),
            steps,
            encoder_hidden_states=embeds.to(self.dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return weighted_error(predicted, target, weight.to(self.device)) * row_weight[:, 0, 0, 0], steps

    def weight(self, rows: np.ndarray, masked: np.ndarray) -> Tensor:
        """Weights of latent cells [batch, 1, h, w]: the face more; where `masked` [batch] nothing but the person."""
        high, wide = (int(side) // _CELL for side in self.frames.targets[rows[0]])
        weight = 1 + (self.settings.diffusion.face - 1) * box_map(self.frames.boxes(rows), (high, wide))
        if not masked.any():
            return weight
        masks = [self.frames.picture(int(row), np.asarray(self.data.masks[int(row)])) for row in rows]
        person = mask_map(np.stack(masks))
        return torch.where(torch.from_numpy(masked)[:, None, None, None], weight * person, weight)

    def _references(self, rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        s = self.settings
        return [draw_references(self.data, int(r), s.photos, s.photo, rng, s.target_among) for r in rows]

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Predict a picture's noise under its caption and other photos of the same person."""
        settings, count = self.settings, len(rows)
        references = self._references(rows, rng)
        captions = [self._caption(int(row), rng) for row in rows]
        text_only = rng.random(count) < settings.text_only
        embeds, pooled = self.condition(captions, references, text_only, rng)
        keep = (~null_rows(count, settings.diffusion.null_text, rng)).to(self.device)
        condition = (embeds * keep[:, None, None], pooled * keep[:, None])
        masked = rng.random(count) < settings.masked
        error, steps = self.errors(rows, condition, self.weight(rows, masked), generator)
        return error.mean(), thirds(error.detach(), steps)

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
                totals[name].append(
                    self.errors(rows, condition, weight, torch.Generator().manual_seed(seed))[0]
                )
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

    def export(self, folder: Path) -> None:
        """Write the adapter in the official layout."""
        state = get_peft_model_state_dict(self.parts.unet, adapter_name="photomaker")
        export_adapter(
            folder / FILE,
            self.id_encoder,
            state,
            config={**self.notes, "rank": self.settings.rank, "crop": self.settings.photo.crop},
        )

"""Recipe of the PhotoMaker adapter: a frozen base, LoRA on its attention, the ID encoder and the fusion.

Source: PhotoMaker, arXiv 2312.04461, section 3.2 and 4.1: 1 to 4 ID photos of the same person as the target (here never
the target itself), backgrounds of ID photos filled with noise, 10 % empty conditions, half of the losses restricted to
the person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from photomaker.encoders.adapter_file import export_adapter
from photomaker.encoders.id_encoder import PhotoMakerIDEncoder
from photomaker.prompts.encoding import encode
from photomaker.prompts.trigger import TRIGGER
from photomaker.training.base import BaseParts, decayed_groups, thirds
from photomaker.training.data import SIZE, People, box_map, mask_map
from photomaker.training.diffusion import (
    DiffusionSettings,
    Noising,
    null_rows,
    time_ids,
    use_plain_attention,
    weighted_error,
)
from photomaker.training.loop import Recipe
from photomaker.training.photos import PhotoSettings, draw_references, photo_tensor

FILE = "photomaker.safetensors"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class AdapterSettings:
    """How the adapter is trained.

    Attributes:
        rank: Rank of the LoRA; its alpha is the same, so that its scale is 1.
        lr: Peak learning rate of the LoRA.
        fusion_lr: Peak learning rate of the projections and the fusion, which start from nothing.
        vision_lr: Peak learning rate of the image tower, which starts trained.
        weight_decay: AdamW's, on matrices.
        photos: Most ID photos of a row, 1 or more.
        masked: Share of rows whose loss counts the person only.
        plain_captions: Share of captions that leave all appearance to the photos.
        text_only: Share of rows trained without photos, for the phase before merging.
        photo: What becomes of the ID photos.
        diffusion: Noise and loss weights.
    """

    rank: int = 20
    lr: float = 1e-3
    fusion_lr: float = 5e-4
    vision_lr: float = 1e-4
    weight_decay: float = 0.01
    photos: int = 4
    masked: float = 0.5
    plain_captions: float = 0.8
    text_only: float = 0.1
    photo: PhotoSettings = field(default_factory=PhotoSettings)
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)


class AdapterRecipe(Recipe):
    """Trains LoRA and ID encoder around a frozen base.

    Args:
        data: Pictures, masks, captions, people.
        latents: [rows, channels, 16, 16] of the same rows, from the base's autoencoder.
        parts: The base; its UNet gets LoRA layers, nothing else of it changes.
        id_encoder: The ID encoder, its tower trained if possible.
        settings: How.
        held_out: People kept for validation, the last ones.
        lora: LoRA weights to go on from, as an adapter file names them; with them goes their own `id_encoder`. None
            starts a new adapter.
    """

    name = "adapter"

    def __init__(
        self,
        data: People,
        latents: np.ndarray,
        parts: BaseParts,
        id_encoder: PhotoMakerIDEncoder,
        settings: AdapterSettings = AdapterSettings(),
        held_out: int = 100,
        lora: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Freeze the base and add the LoRA layers."""
        self.data, self.latents, self.parts, self.settings = data, latents, parts, settings
        self.id_encoder = id_encoder
        self.noising = Noising(settings.diffusion)
        for model in (parts.unet, *parts.text_encoders):
            model.requires_grad_(False)
            model.eval()
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.rank,
            target_modules=list(ATTENTION),
            init_lora_weights="gaussian",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.rank)  # the start of the LoRA is part of the recipe
            parts.unet.add_adapter(config, adapter_name="photomaker")
        use_plain_attention(parts.unet, *parts.text_encoders, id_encoder)
        people = len(data.factors)
        kept = people - min(held_out, people // 4)
        self._rows = np.flatnonzero(data.person < kept)
        self._held_out = np.flatnonzero(data.person >= kept)[:256]
        if lora is None:
            self._match_scale()
        else:
            state = {name.removeprefix("unet."): tensor.float() for name, tensor in lora.items()}
            set_peft_model_state_dict(
                parts.unet, convert_unet_state_dict_to_peft(state), adapter_name="photomaker"
            )

    @torch.no_grad()
    def _match_scale(self) -> None:
        """Let the fusion's last LayerNorm start at the size of class-word features, which the frozen UNet knows."""
        rng = np.random.default_rng(0)
        texts = [self._caption(int(row), rng) for row in self._rows[:: max(1, len(self._rows) // 64)][:64]]
        encoded = encode(texts, [1] * len(texts), self.parts.tokenizers, self.parts.text_encoders)
        class_rows = encoded.embeds[encoded.class_tokens]
        self.id_encoder.fuse_module.layer_norm.weight.fill_(float(class_rows.std(dim=-1).mean()))

    def prepare(self, device: torch.device) -> None:
        """Move the frozen text encoders."""
        super().prepare(device)
        for encoder in self.parts.text_encoders:
            encoder.to(device)

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet, of which only LoRA is trained, and the ID encoder."""
        return {"unet": self.parts.unet, "id_encoder": self.id_encoder}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return LoRA, fusion with projections, and tower, each at its own rate."""
        s, encoder = self.settings, self.id_encoder
        fresh = nn.ModuleList([encoder.visual_projection, encoder.visual_projection_2, encoder.fuse_module])
        return [
            *decayed_groups(self.parts.unet, s.lr, 0.0),
            *decayed_groups(fresh, s.fusion_lr, s.weight_decay),
            *decayed_groups(encoder.vision_model, s.vision_lr, s.weight_decay),
        ]

    @property
    def rows(self) -> np.ndarray:
        """Pictures of the training people."""
        return self._rows

    def _caption(self, row: int, rng: np.random.Generator) -> str:
        plain = rng.random() < self.settings.plain_captions
        return self.data.caption(row, rng, 0.0 if plain else float(rng.uniform(0.3, 1.0)), TRIGGER)

    def id_features(self, references: list[np.ndarray], rng: np.random.Generator) -> Tensor:
        """ID features of ragged rows, padded by zeros.

        Args:
            references: Dataset rows of each row's ID photos.
            rng: Randomness of the photos' backgrounds.

        Returns:
            [batch, most photos of a row, D].
        """
        counts = [len(rows) for rows in references]
        photos = photo_tensor(self.data, np.concatenate(references), self.settings.photo, rng).to(self.device)
        features = self.id_encoder.encode_photos(photos[:, None])[:, 0]
        return nn.utils.rnn.pad_sequence(list(features.split(counts)), batch_first=True)

    def condition(
        self,
        captions: list[str],
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
        copies = [1 if plain else len(rows) for rows, plain in zip(references, text_only, strict=True)]
        with torch.no_grad():
            encoded = encode(
                captions, copies, self.parts.tokenizers, self.parts.text_encoders, device=self.device
            )
        mask = encoded.class_tokens & ~torch.from_numpy(text_only).to(self.device)[:, None]
        embeds = self.id_encoder.fuse(encoded.embeds.float(), self.id_features(references, rng), mask)
        return embeds, encoded.pooled

    def errors(
        self, rows: np.ndarray, condition: tuple[Tensor, Tensor], weight: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Loss of each row [batch] under `weight` [batch, 1, 16, 16] and its timestep [batch]."""
        clean = torch.from_numpy(np.asarray(self.latents[rows], dtype=np.float32)).to(self.device)
        noisy, steps, target, row_weight = self.noising(clean, generator)
        embeds, pooled = condition
        predicted = self.parts.unet(
            noisy,
            steps,
            encoder_hidden_states=embeds,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids(len(rows), SIZE).to(self.device)},
            return_dict=False,
        )[0]
        return weighted_error(predicted, target, weight.to(self.device)) * row_weight[:, 0, 0, 0], steps

    def weight(self, rows: np.ndarray, masked: np.ndarray) -> Tensor:
        """Weights of latent cells [batch, 1, 16, 16]: the face more; where `masked` [batch] nothing but the person."""
        side = self.latents.shape[-1]
        weight = 1 + (self.settings.diffusion.face - 1) * box_map(self.data.boxes[rows], side)
        person = mask_map(np.asarray(self.data.masks[rows]), side)
        return torch.where(torch.from_numpy(masked)[:, None, None, None], weight * person, weight)

    def loss(
        self, rows: np.ndarray, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Predict v of a picture under its caption and other photos of the same person."""
        settings, count = self.settings, len(rows)
        references = [draw_references(self.data, int(r), settings.photos, settings.photo, rng) for r in rows]
        captions = [self._caption(int(row), rng) for row in rows]
        text_only = rng.random(count) < settings.text_only
        embeds, pooled = self.condition(captions, references, text_only, rng)
        keep = (~null_rows(count, settings.diffusion.null, rng)).to(self.device)
        condition = (embeds * keep[:, None, None], pooled * keep[:, None])
        masked = rng.random(count) < settings.masked
        error, steps = self.errors(rows, condition, self.weight(rows, masked), generator)
        return error.mean(), thirds(error.detach(), steps)

    def validate(self, rng: np.random.Generator, generator: torch.Generator) -> dict[str, float]:
        """Measure the person's loss for unseen people, with their own photos and with a stranger's."""
        totals: dict[str, list[Tensor]] = {"loss": [], "loss_of_stranger": []}
        for rows in np.array_split(self._held_out, max(1, len(self._held_out) // 32)):
            own = [
                draw_references(self.data, int(r), self.settings.photos, self.settings.photo, rng)
                for r in rows
            ]
            captions = [self._caption(int(row), rng) for row in rows]
            weight = self.weight(rows, np.ones(len(rows), dtype=bool))
            seed = int(rng.integers(2**62))
            half = len(own) // 2
            for name, references in (("loss", own), ("loss_of_stranger", own[half:] + own[:half])):
                condition = self.condition(captions, references, np.zeros(len(rows), dtype=bool), rng)
                totals[name].append(
                    self.errors(rows, condition, weight, torch.Generator().manual_seed(seed))[0]
                )
        return {name: float(torch.cat(parts).mean()) for name, parts in totals.items()}

    def export(self, folder: Path) -> None:
        """Write the adapter in the official layout."""
        state = get_peft_model_state_dict(self.parts.unet, adapter_name="photomaker")
        export_adapter(
            folder / FILE,
            self.id_encoder,
            state,
            config={"rank": self.settings.rank, "crop": self.settings.photo.crop},
        )

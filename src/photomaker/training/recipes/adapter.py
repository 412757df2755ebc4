"""Recipe of the PhotoMaker adapter: a frozen base, LoRA on its attention, the ID encoder and the fusion.

One recipe for all sizes: the bundled small model and full SDXL, V1 and V2. The noise schedule and what is predicted
come from the base's own scheduler; the data may be the synthetic people or shards of photos of any sizes.

Source: PhotoMaker, arXiv 2312.04461, section 3.2 and 4.1: 1 to 4 ID photos of the same person as the target (here never
the target itself, unless asked for), backgrounds of ID photos filled with noise, 10 % empty conditions, half of the
losses restricted to the person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from photomaker.encoders.adapter_file import export_adapter
from photomaker.encoders.ip_adapter import cross_attentions
from photomaker.errors import SettingsError, WeightsError
from photomaker.pipelines.attention.regions import RegionalAttention, regions_of
from photomaker.pipelines.drop_in.fitting import check_lora
from photomaker.prompts.encoding import Copies
from photomaker.prompts.places import places_said
from photomaker.training.data.texts import Caption, Texts
from photomaker.training.losses.attention import AttentionRecorder, person_attention_loss, shrunk_mask
from photomaker.training.recipes.base import decayed_groups
from photomaker.training.recipes.people import Condition, Ingredients, Noised, PeopleRecipe

FILE = "photomaker.safetensors"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class AdapterRecipe(PeopleRecipe):
    """Trains LoRA and ID encoder around a frozen base.

    What is trained is held in float32, whatever the precision of the base.

    Args:
        data: Pictures, masks, captions, people.
        latents: Of the same rows, from the base's autoencoder.
        parts: The base; its UNet gets LoRA layers, nothing else of it changes.
        id_encoder: The ID encoder.
        settings: How.
        held_out: People kept for validation, the last ones.
        lora: LoRA weights to continue from, as an adapter file names them; with them goes their own `id_encoder`. None
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
        given: Ingredients,
        lora: Mapping[str, Tensor] | None = None,
        *,
        faces: np.ndarray | None = None,
    ) -> None:
        """Freeze the base and add the LoRA layers."""
        super().__init__(given)
        id_encoder, settings, parts = given.id_encoder, given.settings, given.parts
        self.faces = faces
        id_encoder.arrange(settings.stack, settings.class_word)
        self._check(lora)
        self._add_lora()
        self._freeze_encoder()
        self.recorder: AttentionRecorder | None = None
        if settings.attention:
            self.recorder = AttentionRecorder(parts.unet, cross_attentions(parts.unet).values())
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
                f"the base takes text of width {width}, but the ID encoder is for width {encoder.width}; give a base "
                "and an ID encoder that belong together"
            )
        if encoder.needs_faces and self.faces is None:
            raise SettingsError("a V2 adapter needs a face embedding of every photo, and the data has none")
        if lora is not None:
            check_lora(self.parts.unet, lora, "the given adapter")
            rank = min(len(tensor) for name, tensor in lora.items() if ".down." in name)
            if rank != self.settings.rank:
                raise SettingsError(
                    f"rank is {self.settings.rank}, but the adapter to continue from has {rank}; give its own rank"
                )

    def _add_lora(self) -> None:
        """Add LoRA layers in float32."""
        unet, settings = self.parts.unet, self.settings
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
                    f"vision is {wanted}, but the image encoder has {len(layers)} layers; give fewer"
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
        alone = self._rows[~self.pair[self._rows]]
        texts = [self._caption(int(row), rng) for row in alone[:: max(1, len(alone) // 64)][:64]]
        encoded = Texts(self.parts)(texts, [1] * len(texts), self.parts.text_encoders[0].device)
        class_rows = encoded.embeds[encoded.class_tokens]
        self.id_encoder.fuse_module.layer_norm.weight.fill_(float(class_rows.float().std(dim=-1).mean()))

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet, of which only LoRA is trained, and the ID encoder."""
        return {"unet": self.parts.unet, "id_encoder": self.id_encoder}

    def called(self) -> list[nn.Module]:
        """Return the UNet and the parts of the ID encoder, which itself is never called as a whole."""
        return [self.parts.unet, *self.id_encoder.children()]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return LoRA, fusion with projections, and image encoder, each at its own rate."""
        s, encoder = self.settings, self.id_encoder
        fresh = nn.ModuleList([part for name, part in encoder.named_children() if name != "vision_model"])
        return [
            *decayed_groups(self.parts.unet, s.lr, 0.0),
            *decayed_groups(fresh, s.fusion_lr, s.weight_decay),
            *decayed_groups(encoder.vision_model, s.vision_lr, s.weight_decay),
        ]

    def signature(self) -> dict[str, str]:
        """Base, version and rank; see `Recipe.signature`."""
        return {"version": self.id_encoder.version, "rank": str(self.settings.rank), **self.origin}

    def id_features(self, references: list[np.ndarray], rng: np.random.Generator) -> Tensor:
        """ID features of ragged rows, padded by zeros.

        Args:
            references: Dataset rows of each row's ID photos.
            rng: Randomness of the photos' backgrounds.

        Returns:
            [batch, most photos of a row, D], for V2 [batch, most photos, tokens, D]; one embedding in place of the
            photos where they are not stacked.
        """
        counts, rows = [len(rows) for rows in references], np.concatenate(references)
        photos = self.photos(references, rng)
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
    ) -> Condition:
        """Prompt embeddings with the stacked ID embedding; see `PeopleRecipe.condition`."""
        orders = [self._order(text, rows) for text, rows in zip(captions, references, strict=True)]
        references = [
            np.concatenate([self._by_person(rows)[at] for at in order])
            for rows, order in zip(references, orders, strict=True)
        ]
        copies = [self._copies(rows, bool(plain)) for rows, plain in zip(references, text_only, strict=True)]
        encoded = self.texts(captions, copies, self.device)
        mask = encoded.class_tokens & ~torch.from_numpy(text_only).to(self.device)[:, None]
        embeds = self.id_encoder.fuse(encoded.embeds.float(), self.id_features(references, rng), mask)
        more = {"class_tokens": mask}
        if any(not isinstance(one, int) for one in copies):
            more["subjects"] = _subjects(mask, copies, orders)
        return Condition(embeds, encoded.pooled, more)

    def _by_person(self, references: np.ndarray) -> list[np.ndarray]:
        """The photos of each person of a row, from left to right."""
        return np.split(references, np.flatnonzero(np.diff(self.data.person[references])) + 1)

    def _order(self, caption: Caption, references: np.ndarray) -> tuple[int, ...]:
        """The people of a row, counted from left to right, in the order in which the caption names them."""
        people = len(self._by_person(references))
        said = places_said(str(caption), people) if people > 1 else None
        return tuple(range(people)) if said is None or said[0] == "left" else tuple(reversed(range(people)))

    def _copies(self, references: np.ndarray, plain: bool) -> Copies:
        """Class tokens of a row, of each person where its photos are of several."""
        tokens = self.id_encoder.num_tokens
        each = tuple(
            1 if plain else tokens * (len(own) if self.id_encoder.stacks else 1)
            for own in self._by_person(references)
        )
        return each if len(each) > 1 else each[0]

    def predict(self, noised: Noised, condition: Condition) -> Tensor:
        """See `PeopleRecipe.predict`; the attention of this call is what is kept.

        Where pictures show two people, each is read where they are, as at inference; see `pipelines.attention.regions`.
        """
        if self.recorder is not None:
            self.recorder.kept.clear()
        subjects = condition.more.get("subjects")
        if subjects is None:
            return super().predict(noised, condition)
        high, wide = (int(side) for side in noised.noisy.shape[-2:])
        regions = torch.stack([self._regions(int(row), high, wide) for row in noised.rows])
        with RegionalAttention.known(subjects > 0, regions).attached(self.parts.unet):
            return super().predict(noised, condition)

    def _regions(self, row: int, high: int, wide: int) -> Tensor:
        """Where the first and the second person of a picture are [2, h, w]; everywhere, where there is one."""
        if not self.pair[row]:
            return torch.ones(2, high, wide)
        border = self.data.middle(row)  # type: ignore[attr-defined]
        return regions_of([(0.0, 0.0, border, 1.0), (border, 0.0, 1.0, 1.0)], high, wide)

    def seen(self, rows: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        """What the watched layers looked at since the last `predict`, each with the person's mask at its resolution.

        Args:
            rows: The dataset rows that were drawn.

        Returns:
            Attention [batch, heads, places, length] and mask [batch, places] a layer; nothing the second time, where no
            layer is watched, or where no gradients were computed.
        """
        kept = self.recorder.taken() if self.recorder is not None else []
        person = self.person(rows).to(self.device) if kept else None
        return [
            (attention, shrunk_mask(person, attention.shape[2])) for attention in kept if person is not None
        ]

    def further(
        self, noised: Noised, predicted: Tensor, condition: Condition
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss on attention, the mean over layers, where it is asked for."""
        tokens, wanted = condition.more["class_tokens"], self.settings.attention_share
        found = [
            person_attention_loss(attention, tokens, mask, wanted)
            for attention, mask in self.seen(noised.rows)
        ]
        if not found:
            return super().further(noised, predicted, condition)
        loss, share = (torch.stack(parts).mean() for parts in zip(*found, strict=True))
        return self.settings.attention * loss, {
            "attention": float(loss.detach()),
            "attention_share": float(share),
        }

    def export(self, folder: Path) -> None:
        """Write the adapter in the official layout."""
        state = get_peft_model_state_dict(self.parts.unet, adapter_name="photomaker")
        export_adapter(
            folder / FILE,
            self.id_encoder,
            state,
            config={**self.notes, "rank": self.settings.rank, "crop": self.settings.photo.crop},
        )


def _subjects(mask: Tensor, copies: Sequence[Copies], orders: Sequence[Sequence[int]]) -> Tensor:
    """Whose class tokens are where, from left to right: float [batch, 2, length], nothing in rows of one person."""
    found = torch.zeros(len(mask), 2, mask.shape[1], device=mask.device)
    for row, (counts, order) in enumerate(zip(copies, orders, strict=True)):
        if not isinstance(counts, int) and mask[row].any():
            for person, own in zip(order, mask[row].nonzero().flatten().split(list(counts)), strict=True):
                found[row, person, own] = 1
    return found

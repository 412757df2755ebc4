"""Recipe of PhotoVerse: text and image adapters, low-rank updates of the text's keys and values, and an image branch.

What the paper leaves open is decided here: the image tower is the PhotoMaker adapter's; its last layers are read, each
by its summary token; the pseudo-words follow the class word; the empty condition has no image tokens; the face loss
counts at low noise only, where the picture that is predicted in one step has a face.

Source: arXiv 2309.05793, sections 3.2 to 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from photomaker.encoders.ip_adapter import cross_attentions
from photomaker.encoders.photoverse import PhotoVerseAdapters, export_photoverse
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError
from photomaker.pipelines.attention.dual import DualAttention, words_in
from photomaker.prompts import Rows, encode_rows, expand
from photomaker.training.data.texts import Caption
from photomaker.training.recipes.people import (
    Condition,
    Ingredients,
    Noised,
    PeopleRecipe,
    check_layers,
    mean_of_photos,
)

FILE = "photoverse.safetensors"
FaceEmbedding = Callable[[Tensor, Tensor], Tensor]
"""Pictures [batch, 3, h, w] in 0..1 and face boxes [batch, 4] in pixels to embeddings [batch, width] of length 1, with
gradients."""


@dataclass(frozen=True)
class PhotoVerseSettings:
    """What is PhotoVerse's own; of `AdapterSettings`, `rank` is that of the updates of the text's keys and values.

    Attributes:
        layers: Layers of the image tower that are read, counted from the end where below 0.
        hidden: Width inside the adapters.
        words: Weight of the mean size of the pseudo-words.
        values: Weight of the mean size of the image branch's values.
        face: Weight of the face-identity loss; 0 switches it off.
        face_noise: Share of the timesteps, from the clean end, in which it counts.

    Raises:
        SettingsError: A value is outside its range.
    """

    layers: tuple[int, ...] = (-1, -2, -3, -4, -5)
    hidden: int = 256
    words: float = 0.01
    values: float = 0.001
    face: float = 0.01
    face_noise: float = 0.3

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise SettingsError(f"layers is {list(self.layers)}; give one or more different numbers")
        if self.hidden < 1:
            raise SettingsError(f"hidden is {self.hidden}; give a whole number from 1 up")
        for name in ("words", "values", "face"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} is {getattr(self, name)}; give a number from 0 up")
        if not 0 <= self.face_noise <= 1:
            raise SettingsError(f"face_noise is {self.face_noise}; give a share from 0 to 1")


def random_fusion(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Weights of the two branches, text and image, for each row [rows, 2]: (2, 0), (1, 1) or (0, 2), a third each."""
    drawn = rng.integers(0, 3, rows)
    return np.stack([2 - drawn, drawn], axis=1).astype(np.float32)


class PhotoVerseRecipe(PeopleRecipe):
    """Trains PhotoVerse; see `PeopleRecipe`.

    Args:
        id_encoder: Its image tower sees the photos and stays as it is.
        own: What is PhotoVerse's own.
        face: Embeds faces for the identity loss; None leaves the loss out.
        seed: Of the new weights.

    Raises:
        SettingsError: The image tower has fewer layers than are to be read.
    """

    name = "photoverse"

    def __init__(
        self,
        given: Ingredients,
        *,
        own: PhotoVerseSettings = PhotoVerseSettings(),
        face: FaceEmbedding | None = None,
        seed: int = 0,
    ) -> None:
        """Freeze base and tower and put the new layers beside them."""
        super().__init__(given)
        self.own, self.face = own, face if own.face else None
        self.tower = ImageTower.of_encoder(given.id_encoder)
        check_layers("photoverse.layers", own.layers, self.tower)
        unet, width = given.parts.unet, int(given.parts.unet.config.cross_attention_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            hidden = int(self.tower.config.hidden_size)
            self.adapters = PhotoVerseAdapters(len(own.layers), hidden, width, own.hidden)
            self.layers = {name: self._processor(name) for name in cross_attentions(unet).values()}
        self._match_words()
        processors = dict(unet.attn_processors)
        processors |= {f"{name}.processor": layer for name, layer in self.layers.items()}
        unet.set_attn_processor(processors)

    def _processor(self, name: str) -> DualAttention:
        """The two branches of a layer, that of the image starting as that of the text."""
        layer: Any = self.parts.unet.get_submodule(name)
        made = DualAttention(layer.to_k.in_features, layer.to_k.out_features, self.settings.rank)
        made.to_k_s.weight.data.copy_(layer.to_k.weight.data.float())
        made.to_v_s.weight.data.copy_(layer.to_v.weight.data.float())
        return made

    @torch.no_grad()
    def _match_words(self) -> None:
        """Let pseudo-words start at the size of real words, which the frozen text encoders know."""
        first, second = (
            float(encoder.get_input_embeddings().weight.float().std()) for encoder in self.parts.text_encoders
        )
        cut = int(self.parts.text_encoders[0].config.hidden_size)
        for adapter in self.adapters.text_adapters:
            last = adapter[2]  # type: ignore[index]
            for rows, size in ((slice(None, cut), first), (slice(cut, None), second)):
                last.weight[rows] *= size / last.weight[rows].std() / last.in_features**0.5
                last.bias[rows] = 0

    def prepare(self, device: torch.device) -> None:
        """Move the frozen tower and what the losses need."""
        super().prepare(device)
        self.tower.to(device)
        if self.face is not None:
            self.parts.autoencoder.to(device)

    def modules(self) -> dict[str, nn.Module]:
        """Return the UNet, of which only the new layers are trained, and the adapters."""
        return {"unet": self.parts.unet, "adapters": self.adapters}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the attention's new layers, and the adapters, each at its own rate."""
        return self.token_rates(self.layers.values(), self.adapters)

    def signature(self) -> dict[str, str]:
        """Base, data, layers and rank; see `Recipe.signature`."""
        return {"layers": str(list(self.own.layers)), "rank": str(self.settings.rank), **self.origin}

    def condition(
        self,
        captions: Sequence[Caption],
        references: list[np.ndarray],
        text_only: np.ndarray,
        rng: np.random.Generator,
    ) -> Condition:
        """Captions with pseudo-words, and image tokens; see `PeopleRecipe.condition`."""
        with torch.no_grad():
            each = self.tower.summaries(self.photos(references, rng), self.own.layers).float()
            seen = mean_of_photos(each, references)
        words, tokens = self.adapters(seen)
        with_photos = torch.from_numpy(~text_only).to(self.device)
        copies = [1 if plain else 1 + len(self.own.layers) for plain in text_only]
        first, second = (
            [expand(caption, tokenizer, count) for caption, count in zip(captions, copies, strict=True)]
            for tokenizer in self.parts.tokenizers
        )
        rows: Rows = (first, second)
        with words_in(self.parts.text_encoders, rows, words):
            encoded = encode_rows(rows, self.parts.text_encoders, device=self.device)
        fusion = random_fusion(len(captions), rng) if torch.is_grad_enabled() else np.ones((len(captions), 2))
        weights = torch.from_numpy(fusion).float().to(self.device)
        there = with_photos[:, None]
        more = {
            "tokens": tokens * there[..., None],
            "words": words * there[..., None],
            "fusion": torch.where(there, weights, torch.ones_like(weights)),
        }
        return Condition(encoded.embeds.float(), encoded.pooled, more, {"fusion": torch.ones_like(weights)})

    def predict(self, noised: Noised, condition: Condition) -> Tensor:
        """See `PeopleRecipe.predict`, with both branches."""
        text, image = condition.more["fusion"][:, None, :].unbind(-1)
        for layer in self.layers.values():
            layer.tokens = condition.more["tokens"]
            layer.text, layer.image = text[..., None], image[..., None]
        return super().predict(noised, condition)

    def further(
        self, noised: Noised, predicted: Tensor, condition: Condition
    ) -> tuple[Tensor, dict[str, float]]:
        """Sizes of words and values, and the likeness of the face that is predicted."""
        words = condition.more["words"].abs().mean()
        kept = [
            layer.values.float().abs().mean() for layer in self.layers.values() if layer.values is not None
        ]
        values = torch.stack(kept).mean() if kept else words.new_zeros(())
        loss = self.own.words * words + self.own.values * values
        figures = {"words": float(words.detach()), "values": float(values.detach())}
        face = self._face_loss(noised, predicted, condition)
        if face is not None:
            loss = loss + self.own.face * face
            figures["face"] = float(face.detach())
        return loss, figures

    def _face_loss(self, noised: Noised, predicted: Tensor, condition: Condition) -> Tensor | None:
        """Mean of 1 - cosine of the faces in the pictures and in what is predicted of them in one step."""
        if self.face is None:
            return None
        limit = self.own.face_noise * len(self.noising.alpha_bar)
        chosen = (noised.steps < limit) & condition.more["tokens"].flatten(1).any(1)
        if not bool(chosen.any()):
            return None
        with torch.autocast(self.device.type, enabled=False):
            clean = self.noising.clean(noised.noisy[chosen], predicted[chosen].float(), noised.steps[chosen])
            boxes = torch.from_numpy(np.asarray(self.frames.boxes(noised.rows), dtype=np.float32))
            boxes = boxes.to(self.device)[chosen]
            drawn = self.face(self._decoded(clean), boxes)
            with torch.no_grad():
                own = self.face(self._decoded(noised.clean[chosen]), boxes)
            return (1 - (drawn * own).sum(-1)).mean()

    def _decoded(self, latents: Tensor) -> Tensor:
        """Pictures [batch, 3, h, w] in 0..1."""
        autoencoder = self.parts.autoencoder
        pictures = autoencoder.decode(latents / autoencoder.config.scaling_factor, return_dict=False)[0]
        return (pictures / 2 + 0.5).clamp(0, 1)

    def export(self, folder: Path) -> None:
        """Write our layout."""
        attention = {
            name: {
                "to_k.lora_A": layer.k_down.weight,
                "to_k.lora_B": layer.k_up.weight,
                "to_v.lora_A": layer.v_down.weight,
                "to_v.lora_B": layer.v_up.weight,
                "to_k_s": layer.to_k_s.weight,
                "to_v_s": layer.to_v_s.weight,
            }
            for name, layer in self.layers.items()
        }
        notes = {
            **self.notes,
            "layers": list(self.own.layers),
            "rank": self.settings.rank,
            "crop": self.settings.photo.crop,
        }
        export_photoverse(folder / FILE, self.adapters, attention, notes)

"""An adapter on its own, for programs that do not draw with diffusers.

The program keeps its text encoders, its UNet and its denoising loop. It gets the LoRA to put into its UNet, identities
of photos, and a prompt's embeddings with and without the person; from the merge step on the first take the place of
the second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from photomaker.checks import instance, text
from photomaker.encoders import AdapterFile, read_adapter
from photomaker.encoders.preprocess import PhotoLike
from photomaker.errors import IdentityError, PromptError, SettingsError
from photomaker.hub import adapter_file
from photomaker.pipelines.drawing.batches import Defaults
from photomaker.pipelines.drop_in.fusing import copies_of, merged
from photomaker.pipelines.drop_in.identities import FaceEmbeds, check_identity, identity_of, opened_embedder
from photomaker.prompts import (
    TRIGGER,
    EncodedPrompts,
    Rows,
    TextEncoders,
    encode_by,
    expand_rows,
    insert_trigger,
    lengthened,
    weighed,
)
from photomaker.types import Identity
from photomaker.weights import bundled


@dataclass(frozen=True)
class PromptEmbeddings:
    """A prompt for an SDXL UNet, before and after the merge step.

    Attributes:
        embeds: With the person [1, length, D].
        pooled: Its pooled features [1, P].
        text_only_embeds: Without the person, of the same length.
        text_only_pooled: Their pooled features.
        prompt: The prompt with its trigger.
    """

    embeds: Tensor
    pooled: Tensor
    text_only_embeds: Tensor
    text_only_pooled: Tensor
    prompt: str


class PhotoMakerAdapter:
    """A PhotoMaker adapter, V1 or V2, without a diffusion model.

    Examples:
        >>> adapter = PhotoMakerAdapter.open("photomaker-v1.bin")  # doctest: +SKIP
        >>> ada = adapter.identity("photos/ada")  # doctest: +SKIP
        >>> prompt = adapter.prompt("a photo of a woman img", ada, my_text_encoders)  # doctest: +SKIP
    """

    def __init__(
        self, file: AdapterFile, dtype: torch.dtype = torch.float32, trigger_word: str = TRIGGER
    ) -> None:
        """Build the ID encoder; use `open` instead.

        Args:
            file: The adapter file.
            dtype: Precision of the ID encoder.
            trigger_word: The word behind the class word that marks the person.

        Raises:
            WeightsError: The weights do not fit together.
        """
        self._encoder = file.build_encoder().to(dtype)
        self.lora: Mapping[str, Tensor] = dict(file.lora)
        self.trigger_word = trigger_word
        self.source = file.source

    @classmethod
    def open(
        cls,
        place: str | os.PathLike[str] | None = None,
        dtype: torch.dtype = torch.float32,
        trigger_word: str = TRIGGER,
    ) -> PhotoMakerAdapter:
        """Read an adapter.

        Args:
            place: The official `.bin` or safetensors, as a file or hub id with the file's name; None is the bundled
                one.
            dtype: Precision of the ID encoder.
            trigger_word: The word behind the class word that marks the person.

        Raises:
            WeightsError: It is missing, damaged, or not a PhotoMaker adapter.
            SettingsError: The trigger word is not a word.
        """
        if not text("the trigger word", trigger_word) or trigger_word != "".join(trigger_word.split()):
            raise SettingsError(
                f"the trigger word is {trigger_word!r}; give one word without spaces, such as 'img'"
            )
        file = bundled("adapter/photomaker.safetensors") if place is None else adapter_file(place)
        return cls(read_adapter(file), dtype, trigger_word)

    def __repr__(self) -> str:
        """One line of text."""
        return f"PhotoMakerAdapter({self.version}, {self.source})"

    @property
    def version(self) -> str:
        """`v1` or `v2`."""
        return self._encoder.version

    @property
    def merge(self) -> float:
        """Merge step as a share of the steps, 0..1, from the file, or else from the official demo."""
        return Defaults.noted(self._encoder.config.adapter_notes).merge

    @property
    def width(self) -> int:
        """Width D of prompt embeddings with the person."""
        return self._encoder.width

    def to(self, device: torch.device | str) -> PhotoMakerAdapter:
        """Move the ID encoder; the LoRA is not moved."""
        self._encoder.to(device)
        return self

    @torch.no_grad()
    def identity(
        self,
        photos: PhotoLike | Sequence[PhotoLike],
        weights: Sequence[float] | None = None,
        notes: Mapping[str, Any] | None = None,
        id_embeds: FaceEmbeds | None = None,
        face_models: Any = "buffalo_l",  # noqa: ANN401 - a name, a folder, or an object with `embed(photos)`
    ) -> Identity:
        """Make an identity from photos of a person.

        Args:
            photos: One or more of one person: PIL pictures, arrays, tensors, or paths of files and folders.
            weights: Of each photo, 0 or more; 0 leaves it out. None is 1 everywhere.
            notes: Added to the identity's notes.
            id_embeds: For V2, a face embedding of each photo [refs, E], as the recogniser gives it, not normalised.
            face_models: What makes these where they are not given: the name of an InsightFace model pack, a folder of
                such models, or an object with `embed(photos)`.

        Raises:
            PhotoError: There is no photo, one cannot be used, or none shows a face.
            SettingsError: Weights or face embeddings do not fit the photos or the adapter.
            WeightsError: The face models cannot be loaded.
        """
        return identity_of(
            self._encoder, photos, weights, notes, id_embeds, lambda: opened_embedder(face_models)
        )

    def check(self, prompt: str, identity: Identity) -> str:
        """Check a prompt and a person before any model runs.

        Args:
            prompt: The prompt.
            identity: The identity of one person.

        Returns:
            The prompt, with the trigger added if it was missing.

        Raises:
            PromptError: The prompt has no class word.
            IdentityError: The identity was made with another adapter, or is of several people.
            SettingsError: It is not an identity.
        """
        text("the prompt", prompt, "write for example 'a photo of a woman img in the snow'", PromptError)
        instance("the identity", identity, Identity, "give an Identity")
        check_identity(identity, self._encoder)
        if "subjects" in identity.tensors:
            raise IdentityError(
                "the identity has several people, who need a layout in the UNet; give an identity of one person"
            )
        return insert_trigger(prompt, self.trigger_word)

    @torch.no_grad()
    def prompt(self, prompt: str, identity: Identity, texts: TextEncoders) -> PromptEmbeddings:
        """A prompt's embeddings with and without a person.

        Args:
            prompt: Of any length, with or without trigger; `(words:1.3)` weighs words.
            identity: The person, of any number of photos; one whose photos all have weight 0 leaves the prompt as it
                is.
            texts: The text encoders of the diffusion model.

        Raises:
            PromptError: See `check`.
            IdentityError: See `check`; or the text encoders are of a different width than the adapter.
        """
        complete = self.check(prompt, identity)
        copies = copies_of(identity, self._encoder.num_tokens)
        assert isinstance(copies, int)
        rows, plain = self._rows(complete, max(1, copies), texts)
        cut = int(self._encoder.config.projection_dim)
        encoded, before = (encode_by(one, texts, cut) for one in (rows, plain))
        self._check_width(encoded.embeds)
        alone = self._weighed(before.embeds, before, texts)
        if copies == 0:
            return PromptEmbeddings(alone, before.pooled, alone, before.pooled, complete)
        with_person = merged(self._encoder, encoded, [identity])
        embeds = self._weighed(with_person.embeds.to(alone), encoded, texts)
        return PromptEmbeddings(embeds, encoded.pooled, alone, before.pooled, complete)

    def _rows(self, prompt: str, copies: int, texts: TextEncoders) -> tuple[Rows, Rows]:
        """The prompt with a class token for each photo and with one, both of one length."""
        both = [
            expand_rows([prompt], [count], texts.tokenizers, trigger=self.trigger_word, long=True)
            for count in (copies, 1)
        ]
        length = max(len(rows[0][0].ids) for rows in both)
        first, second = (lengthened(rows, texts.tokenizers, length) for rows in both)
        return first, second

    def _weighed(self, embeds: Tensor, encoded: EncodedPrompts, texts: TextEncoders) -> Tensor:
        if encoded.weights is None:
            return embeds
        empty = encode_by(expand_rows([""], None, texts.tokenizers), texts, 0)
        return weighed(embeds, encoded.weights, empty.embeds)

    def _check_width(self, embeds: Tensor) -> None:
        if embeds.shape[-1] != self.width:
            raise IdentityError(
                f"the text encoders give features of width {embeds.shape[-1]}, but the adapter {self.source} is for "
                f"{self.width}; give those of the base model that it was made for"
            )

"""Shared by the pretrained methods: photos to an identity, requests to batches."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from PIL.Image import Image
from torch import Tensor, nn

from photomaker.errors import IdentityError, PhotoError, SettingsError, WeightsError
from photomaker.faces.base import Seen
from photomaker.methods.base import Method
from photomaker.pipelines.drawing.batches import Defaults, in_batches, settled
from photomaker.pipelines.drawing.memory import MemoryPlan
from photomaker.pipelines.drawing.opening import place_pipeline
from photomaker.pipelines.drawing.photos import (
    Background,
    checked_background,
    photo_notes,
    photo_weights,
    prepared_picture,
)
from photomaker.pipelines.steps.watching import Watch
from photomaker.registry import find
from photomaker.types import Face, Identity, Reference, Request, Sampling
from photomaker.weights import bundled, is_bundled

BATCH_SIZE = 8


class Faces(Protocol):
    """What finds and embeds the person's face."""

    @property
    def notes(self) -> dict[str, str]:
        """Name and licence; `face_models` is the name."""

    def see(self, photos: Sequence[Image], faces: Sequence[Face | None]) -> Sequence[Seen | None]:
        """The person's face in each photo; `faces` are those that are known."""


def opened_faces(place: str | os.PathLike[str]) -> Faces:
    """What finds and embeds faces.

    Args:
        place: `bundled` for the recogniser of the synthetic people, or InsightFace's models as a folder or pack.

    Raises:
        SettingsError: InsightFace is not installed.
        WeightsError: Its weights are missing.
    """
    if place == "bundled":
        return find("face embedder", "bundled").open()
    return find("face embedder", "insightface").open(place)


def seen_faces(faces: Faces, references: Sequence[Reference], width: int, source: str) -> list[Seen]:
    """The person's face in every photo.

    Args:
        faces: What finds and embeds them.
        references: The photos.
        width: Width of the embeddings that are read.
        source: What reads them, for messages.

    Raises:
        PhotoError: A photo shows no face.
        WeightsError: The recogniser's embeddings are of a different width.
    """
    found = faces.see([one.image for one in references], [one.face for one in references])
    kept = [one for one in found if one is not None]
    if len(kept) < len(references):
        missing = [str(place) for place, one in enumerate(found, start=1) if one is None]
        raise PhotoError(f"no face was found in photo {', '.join(missing)}; leave it out")
    check_face_width(kept[0].embedding.shape[-1], width, source)
    return kept


def check_face_width(given: int | None, wanted: int, source: str) -> None:
    """Refuse a recogniser of a different width; None is one that does not tell.

    Raises:
        WeightsError: It is of a different width.
    """
    if given is not None and given != wanted:
        raise WeightsError(
            f"{source} is for face embeddings of width {wanted}, but the recogniser gives {given}; give the recogniser "
            "that the adapter was made for"
        )


def recogniser_note(trained: str, faces: Faces) -> dict[str, str]:
    """A note where another recogniser reads the photos than `trained`, that of the adapter's training."""
    used = faces.notes["face_models"]
    return {} if Path(used).name == trained else {"face_models_of_adapter": trained}


def bundled_weights(part: str, method: str, published: str = "") -> Path:
    """The bundled weights of a method that may have none yet.

    Args:
        part: Their place among the bundled files.
        method: The method's name.
        published: Base and weights that are published; where there are none, a settings file trains small ones.

    Raises:
        WeightsError: There are none.
    """
    if not is_bundled(part):
        remedy = f"give its base and adapter, such as {published}"
        if not published:
            remedy = f"train them with examples/configs/train_small_{method}.yaml, and give base and adapter"
        raise WeightsError(f"there are no bundled weights of {method}; {remedy}")
    return bundled(part)


def check_made_by(identity: Identity, method: str, *tensors: str) -> None:
    """Refuse an identity of another method.

    Args:
        identity: The identity.
        method: Name of the method that is to draw it.
        tensors: Names of those that it must have.

    Raises:
        IdentityError: It was made by another method, or a tensor is missing.
    """
    if identity.method != method or not set(tensors) <= identity.tensors.keys():
        raise IdentityError(
            f"the identity was made by {identity.method}, not by {method}; make it again with this method"
        )


def check_made_with(identity: Identity, sha256: str, fits: bool, called: str) -> None:
    """Refuse an identity of other weights.

    Args:
        identity: The identity.
        sha256: Of the file of the weights that are to draw it.
        fits: Whether its tensors have the sizes that these weights take.
        called: What such a file is called.

    Raises:
        IdentityError: It was made with another file.
    """
    if not fits or identity.notes.get("encoder_sha256", sha256) != sha256:
        raise IdentityError(f"the identity was made with another {called}; make it again with this one")


def is_absent(identity: Identity, sampling: Sampling) -> bool:
    """Whether nothing of the person goes into a picture: no photo counts, or the person never joins the prompt."""
    return sampling.merge == 1 or not bool((identity.tensors["weights"] > 0).any())


class PretrainedMethod(Method):
    """A method whose own weights read a person from photos at once, on a diffusers SDXL pipeline.

    Args:
        pipeline: The base.
        defaults: Settings for requests that leave them open.
        batch_size: Most pictures drawn at once.

    Raises:
        SettingsError: `batch_size` is below 1.

    Attributes:
        bundled_file: Its weights for the bundled base, among the bundled files.
        file: Its weights as they were read, with what they note as `config`.
        plan: Where the parts stay, once `open` has placed them.
    """

    delays: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    bundled_file: ClassVar[str]
    file: Any

    def __init__(self, pipeline: Any, defaults: Defaults, batch_size: int) -> None:  # noqa: ANN401
        """Store the arguments."""
        if batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size}; give 1 or more")
        self.pipeline, self.defaults, self.batch_size = pipeline, defaults, batch_size
        self.plan: MemoryPlan | None = None

    # ---- what a method says

    @property
    def own_notes(self) -> Mapping[str, Any]:
        """What the file of its weights notes.

        `crop` is the side of the square around the face that is seen, in longer sides of its box; 0 or nothing where
        whole photos are.
        """
        notes: Mapping[str, Any] = self.file.config
        return notes

    @abstractmethod
    def identity(
        self,
        pictures: Sequence[Image],
        references: Sequence[Reference],
        weights: Tensor,
        notes: Mapping[str, Any],
    ) -> Identity:
        """Make the identity.

        Args:
            pictures: The photos, as the image encoder is to see them.
            references: The photos as they came.
            weights: Of the photos [refs].
            notes: For the identity, beside the method's own.
        """

    @abstractmethod
    def check_drawing(self, identity: Identity, requests: Sequence[Request]) -> None:
        """Refuse what cannot be drawn, before any model runs.

        Raises:
            IdentityError: The identity was made with a different method or other weights.
            PromptError: A prompt cannot be used.
        """

    @abstractmethod
    def draw_batch(self, identity: Identity, requests: Sequence[Request]) -> list[Image]:
        """Draw requests that are alike in all but prompt and seed."""

    # ---- what follows from it

    @torch.no_grad()
    def fit(
        self,
        references: Sequence[Reference],
        weights: Sequence[float] | None = None,
        background: Background | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Identity:
        """Make an identity from photos of one person.

        Args:
            references: At least one photo.
            weights: Weight of each photo, >= 0; 0 leaves it out. None is 1 everywhere.
            background: See `Defaults`; None takes the method's own.
            notes: Added to the identity's notes, for example `class_word`.

        Returns:
            Identity with `id_features` [refs, ...], see the method, and `weights` [refs].

        Raises:
            PhotoError: There is no photo, or one lacks the face that the method needs.
            SettingsError: The weights do not fit the photos, or the background is of an unknown kind.
        """
        self.check(references)
        ground = checked_background(background, self.defaults.background)
        given = photo_weights(weights, len(references))
        crop = float(self.own_notes.get("crop", 0))
        pictures = [prepared_picture(reference, ground, crop) for reference in references]
        told = photo_notes(references, ground) | dict(notes or {})
        return self.identity(pictures, references, given, told)

    def generate(
        self, identity: Identity, requests: Sequence[Request], *, watch: Watch | None = None
    ) -> list[Image]:
        """Draw the person; requests alike in steps, guidance, merging and size are drawn together.

        Every row has its own generator, seeded by its request, so that a picture does not depend on its companions.
        `merge` is the share of the steps in which the pictures do not know the person.

        Args:
            identity: Made by `fit`, loaded, or mixed.
            requests: One for each picture.
            watch: Called with every step.

        Returns:
            RGB pictures in the order of the requests.

        Raises:
            IdentityError: The identity was made with a different method or other weights.
            PromptError: A prompt has no class word, several triggers, or the class word too far back.
        """
        asked = self.asked(identity, requests)
        return in_batches(
            self.pipeline, asked, self.batch_size, lambda some: self.draw_batch(identity, some), watch
        )

    def asked(self, identity: Identity, requests: Sequence[Request]) -> list[Request]:
        """The requests with nothing left open, once all of them are known to be drawable.

        Raises:
            IdentityError: The identity was made with a different method or other weights.
            PromptError: A prompt cannot be used.
            SettingsError: A request carries what the method cannot draw with.
        """
        self.check_requests(requests)
        asked = [
            replace(one, sampling=settled(one.sampling, self.defaults, self.pipeline)) for one in requests
        ]
        self.check_drawing(identity, asked)
        return asked

    def placed(self, device: str | torch.device | None, memory: str, *beside: nn.Module) -> Self:
        """The method with its pipeline where it shall draw, the UNet in one piece.

        Args:
            device: Where to compute; None is CUDA if available, else the CPU.
            memory: See `photomaker.pipelines.drawing.memory`.
            beside: Modules that stand beside the pipeline and go where it computes.

        Raises:
            SettingsError: `memory` is not a plan that the method can follow.
        """
        self.plan = place_pipeline(self.pipeline, device, memory, whole=True)
        for module in beside:
            module.to(self.plan.device)
        return self

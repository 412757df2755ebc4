"""The interface of all methods: photos to an identity, an identity and requests to pictures."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from photomaker.checks import instance
from photomaker.errors import PhotoError, SettingsError
from photomaker.hub import adapter_file
from photomaker.types import Reference

if TYPE_CHECKING:
    from PIL.Image import Image

    from photomaker.pipelines.steps.watching import Watch
    from photomaker.types import Identity, Request


class Need(Enum):
    """What a method cannot do without, besides photos and a prompt."""

    FACE = "face"
    STRUCTURE = "structure"
    SCENE = "scene"
    REGION = "region"
    TUNING = "tuning"


class Method(ABC):
    """One personalisation method on one base model.

    Attributes:
        name: Name in the registry.
        needs: What it cannot do without, besides photos and prompts.
        delays: Whether it has a merge step (`Sampling.merge`).
        mixes: Whether `photomaker.encoders.mixing.mix` can mix its identities.
        takes: The extras that it supports, from `photomaker.types.EXTRAS`.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    delays: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def fit(self, references: Sequence[Reference], *, notes: Mapping[str, Any] | None = None) -> Identity:
        """Make an identity from photos of one person.

        Args:
            references: At least one photo.
            notes: Added to the identity's notes; `class_word`, such as `woman`, is what tuned methods call the person
                by.

        Returns:
            A value: no model is changed.

        Raises:
            PhotoError: There is no photo, or one lacks what the method needs; before any model runs.
        """

    @abstractmethod
    def generate(
        self, identity: Identity, requests: Sequence[Request], *, watch: Watch | None = None
    ) -> list[Image]:
        """Draw the person, one picture for each request, in order.

        Args:
            identity: Made by `fit` of the same method and weights.
            requests: Prompts and how to draw them; a picture depends on its own request only.
            watch: Called with every denoising step of every batch; what it raises ends the drawing.

        Raises:
            IdentityError: The identity was made with a different method or other weights.
            PromptError: A prompt cannot be used.
        """

    @classmethod
    def adapter_file(cls, place: str | os.PathLike[str]) -> Path:
        """The file of the method's weights; a hub id is downloaded.

        Args:
            place: A file, or a hub id with the file's name.

        Raises:
            WeightsError: It does not exist, or cannot be downloaded.
        """
        return adapter_file(place)

    @classmethod
    def check_requests(cls, requests: Sequence[Request]) -> None:
        """Refuse requests with extras that the method does not support; no model is needed.

        Raises:
            SettingsError: One has unsupported extras.
        """
        for request in requests:
            foreign = sorted(request.extras.asked - cls.takes)
            if foreign:
                able = "instantid" if foreign[0] == "pose" else "photomaker"
                raise SettingsError(
                    f"the method {cls.name} cannot draw with a {foreign[0]}; leave it out, or use {able}"
                )
            for one in request.extras.controls:
                if one.kind is not None:
                    raise SettingsError(
                        f"{one.kind} must still be extracted from the structure picture; use the Engine, or draw "
                        "them by photomaker.pipelines.structures.structures.drawn and leave kind at None"
                    )

    def check(self, references: Sequence[Reference]) -> None:
        """Refuse references that cannot be used.

        Raises:
            PhotoError: There is none, or the method needs a face and one has none.
            SettingsError: They are no references.
        """
        instance("the references", references, (list, tuple), "give a list of Reference")
        for one in references:
            instance("a reference", one, Reference, "give a Reference; Engine.look makes them from files")
        if not references:
            raise PhotoError("no reference photo was given; give at least one photo of the person")
        if Need.FACE in self.needs:
            for number, reference in enumerate(references, start=1):
                if reference.face is None:
                    called = reference.name or f"number {number}"
                    raise PhotoError(
                        f"{self.name} needs a face in every photo, but photo {called} has none; leave it out"
                    )

"""What a process has at hand while it carries tasks out: people, judge and methods, opened when first needed."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from photomaker.evaluation.judges.bundled import BundledJudge
from photomaker.evaluation.people.references import FaceReferences
from photomaker.evaluation.people.world import SyntheticWorld, World
from photomaker.evaluation.running.methods import Entry, base_and_adapter, method_class, open_method

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from photomaker.methods.base import Method
    from photomaker.types import Identity, Reference, Structure

Prepare = Callable[[Sequence["Image"], str], list["Reference"]]
"""Turns photos, with a person's name, into references."""

MEBIBYTE = 2**20
Made = TypeVar("Made")


def synthetic_world(settings: object) -> SyntheticWorld:
    """The synthetic people, whatever the settings."""
    del settings
    return SyntheticWorld()


def bundled_judge(settings: object) -> BundledJudge:
    """The judge that ships with the package, whatever the settings."""
    del settings
    return BundledJudge.open()


def bundled_references(settings: object) -> Prepare:
    """Photos prepared with the bundled face finder, whatever the settings."""
    del settings
    return FaceReferences.open()


def mix_identities(parts: Sequence[tuple[Identity, float]]) -> Identity:
    """A new person between several, photo by photo; see `photomaker.encoders.mixing.mix`."""
    from photomaker.encoders.mixing import mix

    return mix(parts, "blend")


def structure_of(model: str, picture: Image, landmarks: np.ndarray, scale: float) -> Structure:
    """The structure of a picture with a face, as a ControlNet follows it.

    Args:
        model: The ControlNet, as a folder or `bundled`.
        picture: What is followed.
        landmarks: [5, 2] of the face.
        scale: How closely.
    """
    from photomaker import registry

    made: Structure = registry.find("structure", "noted")(model, picture, landmarks, scale)
    return made


@dataclass(frozen=True)
class Tools:
    """How a process gets what it works with: module-level functions, so that they reach other processes.

    Attributes:
        world: Opens the source of people and real photos, of the plan's settings.
        judge: Opens what measures pictures, of the plan's settings.
        references: Opens what prepares photos for a method, of the plan's settings.
        method: Opens a method.
        models: Hashes of what is behind a method: names to a few hexadecimal digits.
        kind: Imports a method's class.
        mix: Mixes identities with their weights.
        follow: Draws the structure of a picture for a ControlNet.
        judge_mark: What `judge` would say its fingerprint is, without opening it; None opens it.
    """

    world: Callable[[Any], World] = synthetic_world
    judge: Callable[[Any], Any] = bundled_judge
    references: Callable[[Any], Prepare] = bundled_references
    method: Callable[[Entry, Any], Method] = open_method
    models: Callable[[Entry, Any], Mapping[str, str]] = base_and_adapter
    kind: Callable[[Entry], type[Method]] = method_class
    mix: Callable[[Sequence[tuple[Identity, float]]], Identity] = mix_identities
    follow: Callable[[str, Image, np.ndarray, float], Structure] = structure_of
    judge_mark: Callable[[Any], str] | None = None

    def judged_by(self, settings: Any) -> str:  # noqa: ANN401 - the settings of any plan
        """The judge's fingerprint."""
        if self.judge_mark is not None:
            return self.judge_mark(settings)
        return str(self.judge(settings).fingerprint())


class Worker:
    """Opens what tasks need when one first needs it, and keeps one method open.

    Attributes:
        settings: Those of the plan.
        tools: How things are opened.
    """

    def __init__(self, settings: Any, tools: Tools) -> None:  # noqa: ANN401 - the settings of any plan
        """Open nothing yet."""
        self.settings = settings
        self.tools = tools
        self._method: tuple[Entry, Method] | None = None
        self._made: dict[str, Any] = {}

    @cached_property
    def world(self) -> World:
        """Where real photos come from."""
        return self.tools.world(self.settings)

    @cached_property
    def judge(self) -> Any:  # noqa: ANN401 - each plan knows the kind of its judge
        """Who measures."""
        return self.tools.judge(self.settings)

    @cached_property
    def prepare(self) -> Prepare:
        """Turns photos into references."""
        return self.tools.references(self.settings)

    def method(self, entry: Entry) -> Method:
        """A method, which stays open until another is asked for."""
        if self._method is None or self._method[0] != entry:
            self._method = None
            self._method = (entry, self.tools.method(entry, self.settings))
        return self._method[1]

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What several tasks need: made for the first one that asks for it by its name, kept for the others."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]  # type: ignore[no-any-return]


def peak_memory() -> float:
    """Largest memory so far in MiB: of the GPU where one is used, else of the process."""
    return device_memory() or process_memory()


def process_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / MEBIBYTE if sys.platform == "darwin" else peak / 1024


def device_memory() -> float | None:
    """Largest memory of the GPU so far, in MiB; None where none is used."""
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda.max_memory_allocated() / MEBIBYTE

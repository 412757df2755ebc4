"""Everything that a training is told, as one settings file says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from photomaker.errors import SettingsError
from photomaker.training.recipes.anydoor import AnyDoorSettings
from photomaker.training.recipes.controlnet import ControlNetSettings
from photomaker.training.recipes.fastcomposer import FastComposerSettings
from photomaker.training.recipes.flashface import FlashFaceTraining
from photomaker.training.recipes.instantid import (
    InstantIDSettings,
)
from photomaker.training.recipes.ip_adapter import IPAdapterSettings
from photomaker.training.recipes.people import AdapterSettings
from photomaker.training.recipes.photoverse import PhotoVerseSettings
from photomaker.training.recipes.pulid import PuLIDSettings
from photomaker.training.recipes.reward import RewardSettings
from photomaker.training.running.previews import PreviewSettings
from photomaker.training.running.settings import TrainSettings

BUNDLED = "bundled"


@dataclass(frozen=True)
class DataSettings:
    """What is trained on.

    Attributes:
        folder: The dataset.
        kind: `shards`, as `photomaker dataset build` writes them, or `world`, synthetic people as arrays.
        resolution: Side of a square picture in pixels; others have as many pixels. Synthetic people have 128.
        buckets: Whether pictures keep about their own aspect ratio; otherwise all are cut to squares.
        held_out: People kept for validation, a quarter at most.
        keep_latents: Whether latents are computed once and kept on disk.
        keep_texts: Whether text embeddings are computed once and kept on disk, for each number of photos.
        cache: Folder for both; None is `cache` inside the training's own.
        composed: Folder of compositions of the same synthetic people, which are trained on as well: other formats,
            people farther away, and, for the adapter and the base, two people in a picture.
    """

    folder: Path
    kind: Literal["shards", "world"] = "shards"
    resolution: int = 1024
    buckets: bool = True
    held_out: int = 100
    keep_latents: bool = True
    keep_texts: bool = False
    cache: Path | None = None
    composed: Path | None = None


@dataclass(frozen=True)
class BaseChoice:
    """The frozen base.

    Attributes:
        model: A diffusers folder, a hub id, or `bundled`.
        dtype: Precision that it is held in.
    """

    model: str
    dtype: Literal["bf16", "fp32"] = "bf16"


@dataclass(frozen=True)
class EncoderChoice:
    """Where the ID encoder comes from.

    Attributes:
        start: A CLIP image encoder (folder or hub id), with new projections and fusion; the export folder of a small
            image tower, the same; or an adapter (file, hub id, or `bundled`), whose LoRA is gone on from too.
        version: `v1`, or `v2` with face embeddings.
        anew: Whether only the image encoder of an adapter is started from, with new projections, fusion and LoRA; the
            methods that PhotoMaker is compared with always start so.
    """

    start: str = "openai/clip-vit-large-patch14"
    version: Literal["v1", "v2"] = "v1"
    anew: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training.

    Attributes:
        out: Folder of the training.
        data: What is trained on.
        base: The frozen base.
        encoder: The ID encoder.
        recipe: What is trained and how, for every method.
        method: What is trained: the PhotoMaker adapter, one of the methods that it is compared with, or the UNet of the
            base itself, by captions alone.
        ip_adapter: What is IP-Adapter's own.
        fastcomposer: What is FastComposer's own.
        photoverse: What is PhotoVerse's own.
        instantid: What is InstantID's own.
        controlnet: What is a ControlNet's own.
        pulid: What is PuLID's own.
        flashface: What is FlashFace's own.
        anydoor: What is AnyDoor's own.
        start: Folder of an earlier training of the same method, whose averaged weights are gone on from.
        reward: Finishing by reward of what was trained before, which `start` or `encoder.start` names; off by default.
        loop: How long.
        preview: Pictures drawn every `loop.preview_every` steps.

    Raises:
        SettingsError: Settings contradict each other.
    """

    out: Path
    data: DataSettings
    base: BaseChoice
    loop: TrainSettings
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    recipe: AdapterSettings = field(default_factory=AdapterSettings)
    method: Literal[
        "photomaker",
        "ip_adapter",
        "fastcomposer",
        "photoverse",
        "instantid",
        "controlnet",
        "pulid",
        "flashface",
        "anydoor",
        "base",
    ] = "photomaker"
    ip_adapter: IPAdapterSettings = field(default_factory=IPAdapterSettings)
    fastcomposer: FastComposerSettings = field(default_factory=FastComposerSettings)
    photoverse: PhotoVerseSettings = field(default_factory=PhotoVerseSettings)
    instantid: InstantIDSettings = field(default_factory=InstantIDSettings)
    controlnet: ControlNetSettings = field(default_factory=ControlNetSettings)
    pulid: PuLIDSettings = field(default_factory=PuLIDSettings)
    flashface: FlashFaceTraining = field(default_factory=FlashFaceTraining)
    anydoor: AnyDoorSettings = field(default_factory=AnyDoorSettings)
    start: Path | None = None
    reward: RewardSettings = field(default_factory=RewardSettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)

    def __post_init__(self) -> None:
        """Check what depends on several settings."""
        if self.base.dtype == "bf16" and self.loop.precision != "bf16":
            raise SettingsError(
                f"base.dtype is bf16, but loop.precision is {self.loop.precision}; set both to bf16, or both to fp32"
            )
        if self.data.kind == "world" and self.encoder.version == "v2":
            raise SettingsError(
                "V2 needs a face embedding of every photo, which data of kind world lacks; use shards or version v1"
            )
        if self.data.kind == "world" and self.data.keep_texts:
            raise SettingsError(
                "captions of kind world change each time and cannot be cached; set keep_texts to false"
            )
        if self.data.composed is not None and (self.data.kind != "world" or not self.data.keep_latents):
            raise SettingsError(
                f"data.composed is {self.data.composed}; that needs data.kind world and data.keep_latents true"
            )
        if self.method == "base" and (self.data.keep_texts or self.base.dtype != "fp32"):
            raise SettingsError(
                "method base trains the UNet itself; set base.dtype to fp32 and data.keep_texts to false"
            )
        seeing = self.method not in ("base", "controlnet")
        if not seeing and (self.reward.likeness or self.reward.tower) and self.reward.steps:
            raise SettingsError(
                f"method {self.method} gets no photos, so likeness cannot be rewarded; set reward.likeness and "
                "reward.tower to 0"
            )
        if self.method == "photoverse" and self.data.keep_texts:
            raise SettingsError(
                "PhotoVerse's words go through the text encoders and cannot be cached; set keep_texts to false"
            )
        if self.method != "photomaker" and (self.loop.preview_every or self.encoder.version == "v2"):
            raise SettingsError(
                f"method {self.method} has neither previews nor a V2 encoder; set loop.preview_every to 0 and "
                "encoder.version to v1"
            )

"""`photomaker bench`: what an identity costs on full-size SDXL, beside plain diffusers in the same run.

The weights are random numbers, made on the spot in the released sizes: time and memory depend on shapes alone.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from photomaker.apps import terminal
from photomaker.apps.bench_page import WORK_STEPS, markdown, publish
from photomaker.apps.flops import matmul_rate, picture_tflop, quick_dtype, unet_inputs
from photomaker.apps.random_sdxl import (
    Sizes,
    bare,
    build,
    filled,
    make_text_encoders,
    make_unet,
    make_vae,
)
from photomaker.errors import SettingsError
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline
from photomaker.pipelines.drawing.batches import as_asked
from photomaker.pipelines.drop_in import mixin
from photomaker.speeds import EXACT, FAST, PRESETS, STUDENT, STUDENTS, TURBO, Student, Way
from photomaker.types import Identity, Sampling

__all__ = [
    "BenchSettings", "Sizes", "bare", "build", "filled", "machine", "make_text_encoders", "make_unet", "make_vae",
    "markdown", "matmul_rate", "peak", "picture_tflop", "quick_dtype", "run", "settings_of",
]  # fmt: skip


PROMPT, PERSON = "a photo of a man on the beach", "a photo of a man img on the beach"


PLAIN, FUSED = "plain diffusers", "identity, LoRA fused"


GUIDANCE, MERGE = 5.0, 0.2


GIB = 2**30


@dataclass(frozen=True)
class BenchSettings:
    """What is measured.

    Attributes:
        sides: Sides of the pictures in pixels, multiples of 8.
        steps: Denoising steps of a picture.
        rounds: How often each way is timed; ways take turns, so that a slow minute hits all of them.
        photos: Photos of the identity.
        device: A torch device.
        sizes: Of the model.
        compile: Time the UNet's blocks compiled too; needs a C++ compiler.
    """

    sides: tuple[int, ...] = (512, 1024)
    steps: int = 4
    rounds: int = 2
    photos: int = 4
    device: str = "cpu"
    sizes: Sizes = field(default_factory=Sizes)
    compile: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            SettingsError: One is out of range.
        """
        if not self.sides or any(side < 64 or side % 8 for side in self.sides):  # noqa: PLR2004 - 8 latent cells
            raise SettingsError(f"the sides are {list(self.sides)}; give multiples of 8 from 64 up")
        for name in ("steps", "rounds", "photos"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; give 1 or more")


def run(settings: BenchSettings, out: Path) -> dict[str, Any]:
    """Measure, print a table, and write `sdxl_speed.json` and `sdxl_speed.md` into `out`."""
    with terminal.waiting("making random weights"):
        pipeline, identity, once = build(settings.sizes, settings.device, settings.photos)
    ways = [_Ways(pipeline, identity, settings, side) for side in settings.sides]
    beside = [way.beside() for way in ways]
    # the LoRA goes into the weights once for all that follows, as `fuse_lora` is meant to be used
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    found = [measure(way, seconds) for way, seconds in zip(ways, beside, strict=True)]
    document = {
        "settings": asdict(settings),
        "machine": machine(settings.device),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "peft")},
        "parameters": {
            name: sum(parameter.numel() for parameter in part.parameters())
            for name, part in pipeline.components.items()
            if isinstance(part, nn.Module)
        },
        "once": once,
        "pictures": found,
        "peak_gib": peak(settings.device),
    }
    publish(out, "sdxl_speed", document, markdown(document))
    return document


def measure(ways: _Ways, beside: float) -> dict[str, Any]:
    """Time every way of making a picture, and compare what comes out.

    Args:
        ways: The ways at one size.
        beside: Seconds of a picture with LoRA layers beside the base's.
    """
    settings, names = ways.settings, list(ways.all)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    latents: dict[str, Tensor] = {}
    for turn in range(settings.rounds + 1):
        place = turn % len(names)
        for name in names[place:] + names[:place]:
            with terminal.waiting(f"{ways.side} x {ways.side}: round {turn} of {settings.rounds}, {name}"):
                latents[name], took = ways.timed(ways.all[name])
            seconds[name].append(took)
    medians = {
        name: statistics.median(found[1:]) for name, found in seconds.items()
    }  # the first is a warm-up
    medians["identity, LoRA not fused"] = beside
    reference = latents[FUSED].float()
    flops, rate = ways.flops(), matmul_rate(settings.device, 512 if settings.sizes.encoder else 4096)
    return {
        "side": ways.side,
        "seconds": medians,
        "over_plain": {name: took / medians[PLAIN] for name, took in medians.items()},
        "difference": {
            name: float((found.float() - reference).abs().max())
            for name, found in latents.items()
            if name not in (PLAIN, FUSED)
        },
        "deviation": float(reference.std()),
        "unet_tflop": flops / 1e12,
        "matmul_tflops": rate / 1e12,
        "floor_seconds": flops * 2 * settings.steps / rate,
        "work_tflop": ways.work(),
    }


def sped() -> dict[str, Way | Student]:
    """What draws in less time, by name: the presets, and the few-step weights, whose LoRA costs nothing once fused."""
    return {FAST: PRESETS[FAST], TURBO: STUDENTS[STUDENT]}


class _Ways:
    """The ways to make a picture, on one and the same set of weights."""

    def __init__(
        self,
        pipeline: PhotoMakerStableDiffusionXLPipeline,
        identity: Identity,
        settings: BenchSettings,
        side: int,
    ) -> None:
        self.pipeline, self.identity, self.settings, self.side = pipeline, identity, settings, side
        parts = {name: part for name, part in pipeline.components.items() if name != "id_encoder"}
        self.stock = StableDiffusionXLPipeline(**parts, add_watermarker=False)
        self.stock.set_progress_bar_config(disable=True)
        self.blocks: dict[nn.Module, Any] = {}
        self.all: dict[str, Callable[[], Tensor]] = {
            PLAIN: self.plain,
            FUSED: lambda: self._without_keeping(self.person),
            "the same, keys and values of the prompt kept": self.person,
            "the same, channels last": self._channels_last,
            "the same as the third, guidance off for the second half": self._half_guided,
            **{
                f"the same as the third, speed {name}": partial(self._sped, way)
                for name, way in sped().items()
            },
        }
        if settings.compile:
            self.all["the same as the second, blocks compiled"] = self._compiled

    def _arguments(self) -> dict[str, Any]:
        device = self.settings.device
        return {
            "num_inference_steps": self.settings.steps,
            "height": self.side,
            "width": self.side,
            "guidance_scale": GUIDANCE,
            "generator": torch.Generator(device).manual_seed(0),
            "output_type": "latent",
        }

    def plain(self) -> Tensor:
        return self.stock(PROMPT, **self._arguments()).images

    def person(self, **more: Any) -> Tensor:
        arguments = self._arguments() | more
        return self.pipeline(PERSON, identity=self.identity, start_merge_step=MERGE, **arguments).images

    def _without_keeping(self, draw: Callable[[], Tensor]) -> Tensor:
        kept = mixin.kept_projections
        mixin.kept_projections = lambda _unet: torch.no_grad()  # type: ignore[assignment, return-value]
        try:
            return draw()
        finally:
            mixin.kept_projections = kept

    def _channels_last(self) -> Tensor:
        unet = self.pipeline.unet
        unet.to(memory_format=torch.channels_last)
        try:
            return self.person()
        finally:
            unet.to(memory_format=torch.contiguous_format)

    def _compiled(self) -> Tensor:
        unet = self.pipeline.unet
        if not self.blocks:
            unet.compile_repeated_blocks()
            self.blocks = {
                block: block._compiled_call_impl for block in unet.modules() if block._compiled_call_impl
            }
        for block, compiled in self.blocks.items():
            block._compiled_call_impl = compiled
        try:
            return self._without_keeping(self.person)
        finally:
            for block in self.blocks:
                block._compiled_call_impl = None

    def _half_guided(self) -> Tensor:
        half = math.ceil(self.settings.steps / 2)

        def switch(pipeline: Any, step: int, _time: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
            if step != half - 1:
                return {}
            pipeline._guidance_scale = 0.0
            return {name: tensor.chunk(2)[-1] for name, tensor in tensors.items() if name != "latents"}

        names = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
        return self.person(callback_on_step_end=switch, callback_on_step_end_tensor_inputs=names)

    def _sped(self, way: Way | Student) -> Tensor:
        sampling = way.applied(Sampling(self.settings.steps, guidance=GUIDANCE, merge=MERGE))
        changes = {"num_inference_steps": sampling.steps, "guidance_scale": sampling.guidance}
        with as_asked(self.pipeline, sampling):
            return self.person(**changes)

    def work(self) -> dict[str, float]:
        """Operations of the UNet for a picture in so many steps, by speed, in units of 10^12."""
        with torch.device("meta"):
            unet = make_unet(self.settings.sizes)
        usual = Sampling(WORK_STEPS, guidance=GUIDANCE, merge=MERGE)
        several = {EXACT: usual, **{name: way.applied(usual) for name, way in sped().items()}}
        return {
            name: picture_tflop(unet, one, self.side // 8, one.guidance != 1) for name, one in several.items()
        }

    def beside(self) -> float:
        """Seconds of a picture with LoRA layers beside the base's."""
        with terminal.waiting(f"{self.side} x {self.side}: LoRA not fused"):
            return statistics.median(
                [self.timed(self.person)[1] for _ in range(self.settings.rounds + 1)][1:]
            )

    def timed(self, draw: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """The latents and the seconds."""
        self._wait()
        start = time.perf_counter()
        latents = draw()
        self._wait()
        return latents, time.perf_counter() - start

    def _wait(self) -> None:
        if self.settings.device.startswith("cuda"):
            torch.cuda.synchronize()

    @torch.no_grad()
    def flops(self) -> float:
        """Floating-point operations of the UNet for one row of one step, counted on shapes alone."""
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"):
            unet = make_unet(self.settings.sizes)
        with FlopCounterMode(display=False) as counter:
            unet(**unet_inputs(unet, 1, self.side // 8))
        return float(counter.get_total_flops())


def peak(device: str) -> dict[str, float]:
    """Peak memory of this process in GiB, and of the GPU where there is one."""
    found = {}
    try:
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        found["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
    except ImportError:  # Windows has no such count
        pass
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.max_memory_allocated() / GIB
    return found


def machine(device: str) -> dict[str, Any]:
    """What it ran on."""
    from photomaker.evaluation.report.files import machine as described

    told = {"device": device, "precision": str(quick_dtype(device)).removeprefix("torch.")}
    return {**described(1, torch.get_num_threads()), **told, "load": os.getloadavg()[0]}


def settings_of(
    sides: Sequence[int],
    steps: int,
    rounds: int,
    photos: int,
    device: str,
    tiny: bool,
    compiled: bool = False,
) -> BenchSettings:
    """The settings from the command line's options."""
    sizes = Sizes.tiny() if tiny else Sizes()
    return BenchSettings(tuple(sides), steps, rounds, photos, device, sizes, compiled)

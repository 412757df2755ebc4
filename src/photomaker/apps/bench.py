"""`photomaker bench`: what an identity costs on full-size SDXL, beside plain diffusers in the same run.

The weights are random numbers, made on the spot in the released sizes: time and memory depend on shapes alone.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from photomaker import bfloat16
from photomaker.apps import terminal
from photomaker.encoders import PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken
from photomaker.encoders.id_encoder_v2 import vision_config_v2
from photomaker.errors import SettingsError
from photomaker.evaluation.report import write
from photomaker.pipelines import PhotoMakerStableDiffusionXLPipeline, mixin
from photomaker.pipelines.drawing import as_asked
from photomaker.pipelines.guidance import GuidanceInterval
from photomaker.pipelines.shortcuts import Sparing
from photomaker.speeds import EXACT, FAST, PRESETS, STUDENT, STUDENTS, TURBO, Student, Way
from photomaker.types import Identity, Sampling
from photomaker.weights import bundled

PROMPT, PERSON = "a photo of a man on the beach", "a photo of a man img on the beach"
PLAIN, FUSED = "plain diffusers", "identity, LoRA fused"
RANK = 64
GUIDANCE, MERGE = 5.0, 0.2
WORK_STEPS = 20
"""Steps of the picture whose operations are counted."""
GIB = 2**30
_VOCABULARY = 49408


@dataclass(frozen=True)
class Sizes:
    """Sizes of the random model; the defaults are SDXL's and those of the released V2 adapter."""

    blocks: tuple[int, ...] = (320, 640, 1280)
    transformers: tuple[int, ...] = (1, 2, 10)
    layers: int = 2
    heads: tuple[int, ...] = (5, 10, 20)
    texts: tuple[int, int] = (768, 1280)
    text_layers: tuple[int, int] = (12, 32)
    text_heads: tuple[int, int] = (12, 20)
    vae: tuple[int, ...] = (128, 256, 512, 512)
    time: int = 256
    encoder: dict[str, int | str] = field(default_factory=dict)

    @classmethod
    def tiny(cls) -> Sizes:
        """Sizes for a rehearsal in seconds."""
        encoder: dict[str, int | str] = {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "patch_size": 16, "image_size": 32, "projection_dim": 32, "projection_dim_2": 64,
            "id_embeddings_dim": 16, "resampler_depth": 1, "resampler_head": 16, "resampler_ff": 1,
            "resampler_ratio": 2,
        }  # fmt: skip
        return cls(
            (32, 64, 64), (1, 1, 1), 1, (2, 4, 4), (32, 64), (2, 2), (2, 4), (32, 32, 32, 32), 8, encoder
        )


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
        pipeline, identity, once = build(settings)
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
    write(out / "sdxl_speed.json", json.dumps(document, indent=2) + "\n")
    page = markdown(document)
    write(out / "sdxl_speed.md", page)
    for line in page.splitlines():
        terminal.say(line)
    return document


# ---- the model


@contextmanager
def bare(dtype: torch.dtype) -> Iterator[None]:
    """Build modules without filling their weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(before)


def filled(module: nn.Module, device: str, spread: float = 0.02) -> Any:  # noqa: ANN401 - any module
    """Give a bare module random weights: small, and ones where a norm scales."""
    module = module.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.uniform_(-spread, spread, generator=generator)
        for name, buffer in module.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1], device=device).expand_as(buffer))
    return module.eval()


def make_unet(sizes: Sizes) -> UNet2DConditionModel:
    """The UNet of SDXL."""
    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=sizes.blocks,
        layers_per_block=sizes.layers,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=sizes.transformers,
        attention_head_dim=sizes.heads,
        cross_attention_dim=sum(sizes.texts),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=sizes.time,
        projection_class_embeddings_input_dim=6 * sizes.time + sizes.texts[1],
    )


def make_vae(sizes: Sizes, force_upcast: bool) -> AutoencoderKL:
    """The autoencoder of SDXL."""
    return AutoencoderKL(
        block_out_channels=sizes.vae, layers_per_block=sizes.layers, latent_channels=4, force_upcast=force_upcast,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.13025,
    )  # fmt: skip


def make_text_encoders(sizes: Sizes) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """The two text encoders of SDXL."""
    configs = [
        CLIPTextConfig(
            vocab_size=_VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=heads, projection_dim=width, hidden_act=act, bos_token_id=0, eos_token_id=2,
            pad_token_id=1,
        )
        for width, layers, heads, act in zip(
            sizes.texts, sizes.text_layers, sizes.text_heads, ("quick_gelu", "gelu"), strict=True
        )
    ]  # fmt: skip
    return CLIPTextModel(configs[0]), CLIPTextModelWithProjection(configs[1])


def _lora(unet: UNet2DConditionModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random LoRA weights on every attention layer, under official names."""
    state: dict[str, Tensor] = {}
    for name, module in unet.named_modules():
        if not name.endswith((".attn1", ".attn2")):
            continue
        layers = {"q": module.to_q, "k": module.to_k, "v": module.to_v, "out": module.to_out[0]}
        for part, layer in layers.items():
            key = f"unet.{name}.processor.to_{part}_lora"
            state[f"{key}.down.weight"] = torch.randn(RANK, layer.in_features).mul(0.01).to(dtype)
            state[f"{key}.up.weight"] = torch.randn(layer.out_features, RANK).mul(0.01).to(dtype)
    return state


def build(
    settings: BenchSettings,
) -> tuple[PhotoMakerStableDiffusionXLPipeline, Identity, dict[str, float]]:
    """SDXL and a V2 adapter with random weights, an identity, and the seconds that things took once."""
    sizes, device = settings.sizes, settings.device
    dtype = quick_dtype(device)
    with bare(dtype):
        unet, texts = make_unet(sizes), make_text_encoders(sizes)
        vae = make_vae(sizes, force_upcast=False)
        encoder = PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken(vision_config_v2(**sizes.encoder))
    unet, vae, encoder = (filled(part, device) for part in (unet, vae, encoder))
    first, second = (filled(part, device) for part in texts)
    base = bundled("base")
    pipeline = PhotoMakerStableDiffusionXLPipeline(
        vae=vae, text_encoder=first, text_encoder_2=second, unet=unet,
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(base / "tokenizer_2"),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    state = {name: tensor.cpu() for name, tensor in encoder.state_dict().items()}
    start = time.perf_counter()
    if sizes.encoder:  # sizes that a released file does not have are noted in a config
        pipeline._load_lora(_lora(unet, dtype))
        pipeline.register_modules(id_encoder=encoder)
    else:
        pipeline.load_photomaker_adapter({"id_encoder": state, "lora_weights": _lora(unet, dtype)})
    seconds = {"load_adapter": time.perf_counter() - start}
    del state, encoder
    gc.collect()
    photos = [torch.rand(3, 256, 256) for _ in range(settings.photos)]
    assert pipeline.id_encoder is not None
    faces = torch.randn(settings.photos, int(pipeline.id_encoder.config.id_embeddings_dim))
    start = time.perf_counter()
    identity = pipeline.encode_identity(photos, id_embeds=faces)
    seconds["encode_identity"] = time.perf_counter() - start
    return pipeline, identity, seconds


# ---- the measurement


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
            unet(**_inputs(unet, 1, self.side // 8))
        return float(counter.get_total_flops())


def picture_tflop(unet: Any, sampling: Sampling, side: int, guided: bool = True) -> float:  # noqa: ANN401
    """Operations of the UNet for one picture, counted, in units of 10^12; nothing is computed on a meta device.

    Args:
        unet: A diffusers UNet of SDXL's kind.
        sampling: How the picture is drawn, with nothing left open.
        side: Of the picture in latent cells.
        guided: Whether there is a negative row.
    """
    from torch.utils.flop_counter import FlopCounterMode

    steps, total = sampling.steps, 0
    interval = GuidanceInterval(sampling.guidance_start, sampling.guidance_stop, lambda: steps)
    with torch.no_grad(), Sparing(sampling, lambda: steps).attached(unet):
        for step in range(steps):
            with FlopCounterMode(display=False) as counter:
                unet(**_inputs(unet, 2 if guided and interval.guides(step) else 1, side))
            total += counter.get_total_flops()
    return total / 1e12


def _inputs(unet: Any, rows: int, side: int) -> dict[str, Any]:  # noqa: ANN401 - a diffusers UNet
    config, like = unet.config, next(unet.parameters())
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return {
        "sample": like.new_zeros(rows, config.in_channels, side, side),
        "timestep": 500,
        "encoder_hidden_states": like.new_zeros(rows, 77, config.cross_attention_dim),
        "added_cond_kwargs": {
            "text_embeds": like.new_zeros(rows, pooled),
            "time_ids": like.new_zeros(rows, 6),
        },
    }


def quick_dtype(device: str) -> torch.dtype:
    """What is timed: bfloat16, except for processors that only imitate it."""
    return torch.bfloat16 if bfloat16.quick(device) else torch.float32


def matmul_rate(device: str, side: int = 4096, tries: int = 5) -> float:
    """Best measured floating-point operations a second of a matrix product in that precision."""
    one = torch.randn(side, side).to(device, quick_dtype(device))
    best = math.inf
    for _ in range(tries):
        start = time.perf_counter()
        _ = one @ one
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


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
    from photomaker.evaluation.report import machine as described

    told = {"device": device, "precision": str(quick_dtype(device)).removeprefix("torch.")}
    return {**described(1, torch.get_num_threads()), **told, "load": os.getloadavg()[0]}


def markdown(document: dict[str, Any]) -> str:
    """The page for people."""
    settings, machine_ = document["settings"], document["machine"]
    parameters = sum(document["parameters"].values()) / 1e9
    tiny = bool(settings["sizes"]["encoder"])
    lines = [
        "# An identity on full-size SDXL, beside plain diffusers",
        "",
        *(["A REHEARSAL with a tiny model: none of the figures mean anything.", ""] if tiny else []),
        f"Made by `photomaker bench`: SDXL's architecture and a V2 adapter (LoRA of rank {RANK}) with random "
        f"{machine_.get('precision', 'bfloat16')} weights, {parameters:.2f} billion parameters; "
        f"{settings['steps']} steps, guidance 5, latents only; medians "
        f"of {settings['rounds']} rounds, the ways taking turns.",
        "",
        f"- machine: {machine_['processor']}, {machine_['cores']} cores, {machine_['threads']} threads, device "
        f"{machine_['device']}",
        f"- once for each identity, not for each picture: {document['once']['encode_identity']:.1f} s for "
        f"{settings['photos']} photos",
        "- peak memory: "
        + ", ".join(f"{value:.1f} GiB ({name})" for name, value in document["peak_gib"].items()),
        "",
    ]
    for found in document["pictures"]:
        side = found["side"]
        lines += [
            f"## {side} x {side}",
            "",
            "| way | seconds | over plain | largest difference of latents |",
            "|---|---|---|---|",
        ]
        for name, took in found["seconds"].items():
            difference = found["difference"].get(name)
            told = "" if difference is None else f"{difference:.2g}"
            lines.append(f"| {name} | {took:.2f} | {found['over_plain'][name]:.3f} | {told} |")
        lines += [
            "",
            f"The latents' deviation is {found['deviation']:.2g}. One row of one step is {found['unet_tflop']:.3g} "
            f"TFLOP, and a matrix product runs at {found['matmul_tflops']:.2f} TFLOP/s here, so that the UNet alone "
            f"takes at least {found['floor_seconds']:.3g} s.",
            "",
            f"Counted, a picture in {WORK_STEPS} steps is "
            + ", ".join(f"{work:.0f} TFLOP ({name})" for name, work in found["work_tflop"].items())
            + f"; {TURBO} always takes {STUDENTS[STUDENT].steps} steps.",
            "",
        ]
    return "\n".join(lines)


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

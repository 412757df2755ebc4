"""Drawing with what a request carries beside prompt and sampling: LoRA, start picture, mask, ControlNets and more.

The models are those of the text-to-image pipeline; other tasks are thin pipelines around the same ones. Every change of
a model is undone when the context ends, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionXLControlNetPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from torch import Tensor, nn

from photomaker import hub
from photomaker.encoders import preprocess
from photomaker.encoders.ip_adapter import IPAdapterFile, check_fit, read_ip_adapter
from photomaker.encoders.tower import ImageTower
from photomaker.errors import SettingsError, WeightsError
from photomaker.pipelines.attention.ip_adapters import loaded_ip_adapter
from photomaker.pipelines.drawing.batches import generators_of, with_guidance
from photomaker.pipelines.drawing.changes import image_projection_in, processors_in
from photomaker.pipelines.drawing.extra_checks import check_lora_file, lora_file, style_file
from photomaker.pipelines.drawing.opening import quietly
from photomaker.pipelines.drop_in.tasks import (
    PhotoMakerStableDiffusionXLAdapterPipeline,
    PhotoMakerStableDiffusionXLControlNetImg2ImgPipeline,
    PhotoMakerStableDiffusionXLControlNetPipeline,
    PhotoMakerStableDiffusionXLImg2ImgPipeline,
)
from photomaker.pipelines.steps.inpainting import kept_outside, latent_mask, pasted
from photomaker.pipelines.structures.structures import check_shape, control_folder, fitted
from photomaker.types import Extras, Lora, Request, Start, Structure, StylePicture
from photomaker.weights import bundled

BUNDLED_STYLE = "methods/ip_adapter.safetensors"
Kinds = Mapping[tuple[bool, bool], Any]
"""Whether there are ControlNets, and whether there is a start picture, to the class that draws; None is the text's."""
PHOTOMAKER: Kinds = {
    (False, False): None,
    (False, True): PhotoMakerStableDiffusionXLImg2ImgPipeline,
    (True, False): PhotoMakerStableDiffusionXLControlNetPipeline,
    (True, True): PhotoMakerStableDiffusionXLControlNetImg2ImgPipeline,
}
STOCK: Kinds = {(False, False): None, (True, False): StableDiffusionXLControlNetPipeline}
"""For methods on a stock pipeline, which draw from no start picture."""


@dataclass(frozen=True)
class Ready:
    """What draws a batch.

    Attributes:
        pipeline: It.
        arguments: Of its call, beside prompt and sampling.
        start: The start picture at the size of the pictures; None without.
        mask: Likewise.
    """

    pipeline: Any
    arguments: Mapping[str, Any]
    start: Image.Image | None = None
    mask: Image.Image | None = None

    def finished(self, drawn: Sequence[Image.Image]) -> list[Image.Image]:
        """The pictures as they are handed out: outside a mask the start picture itself."""
        if self.start is None or self.mask is None:
            return list(drawn)
        return pasted(drawn, self.start, self.mask)


class Kit:
    """What extras need beside a pipeline, kept from batch to batch as long as the same is asked for.

    Args:
        pipeline: Text to image, with PhotoMaker's adapter or a stock one.
        kinds: The pipelines of its tasks.
    """

    def __init__(self, pipeline: Any, kinds: Kinds = PHOTOMAKER) -> None:  # noqa: ANN401 - an SDXL pipeline
        """Nothing is loaded yet."""
        self.pipeline, self.kinds = pipeline, kinds
        self._models: dict[tuple[str, ...], Any] = {}

    @contextmanager
    def ready(self, requests: Sequence[Request]) -> Iterator[Ready]:
        """Have what draws a batch, during the context.

        Args:
            requests: Alike in all but prompt and seed, with nothing left open.

        Raises:
            WeightsError: A model cannot be loaded, or does not fit.
            SettingsError: A structure picture has a different shape than what is drawn.
        """
        extras = requests[0].extras
        self._forget(extras)
        with ExitStack() as stack:
            stack.enter_context(loras_in(self.pipeline, extras.loras))
            arguments: dict[str, Any] = {}
            if extras.style_picture is not None:
                guided = with_guidance(requests[0].sampling)
                arguments |= stack.enter_context(self._styled(extras.style_picture, guided))
            ready = self._task(requests, arguments)
            if ready.pipeline is not self.pipeline:
                # the task's own pipeline draws by the scheduler that was asked for, which tells the steps of this run
                ready.pipeline.scheduler = self.pipeline.scheduler
                self.pipeline._num_timesteps = 0
            if ready.mask is not None:
                stack.enter_context(self._inpainting(ready, requests))
            yield ready

    # ---- the task

    def _task(self, requests: Sequence[Request], arguments: dict[str, Any]) -> Ready:
        extras, sampling, count = requests[0].extras, requests[0].sampling, len(requests)
        size = (int(sampling.width or 0), int(sampling.height or 0))
        if extras.t2i is not None:
            adapter = self._model("T2I-Adapter", extras.t2i.model)
            arguments |= {
                "image": [fitted(extras.t2i.image, size)] * count,
                "adapter_conditioning_scale": extras.t2i.scale,
                "adapter_conditioning_factor": extras.t2i.stop,
            }
            kind = PhotoMakerStableDiffusionXLAdapterPipeline
            return Ready(self._of_kind(kind, {"adapter": adapter}), arguments)
        if extras.controls:
            arguments |= _control_arguments(extras.controls, size, extras.start is not None)
        start, mask = _at_size(extras.start, size)
        if extras.start is not None:
            arguments |= {"image": [start] * count, "strength": extras.start.strength}
        nets = [self._model("ControlNet", one.model) for one in extras.controls]
        kind = self.kinds[bool(nets), extras.start is not None]
        parts = {"controlnet": nets[0] if len(nets) == 1 else nets} if nets else {}
        return Ready(self.pipeline if kind is None else self._of_kind(kind, parts), arguments, start, mask)

    def _of_kind(self, kind: Any, parts: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a pipeline class
        """A pipeline of another task around the same models."""
        names = {*kind._get_signature_types(), "id_encoder"}
        shared = {name: part for name, part in self.pipeline.components.items() if name in names}
        with quietly():
            made = kind(**shared, **parts, **({"add_watermarker": False} if _marks(kind) else {}))
        made.set_progress_bar_config(disable=True)
        return made

    @contextmanager
    def _inpainting(self, ready: Ready, requests: Sequence[Request]) -> Iterator[None]:
        pipeline = ready.pipeline
        assert ready.start is not None
        assert ready.mask is not None
        kept = self._latents(ready.start)
        height, width = kept.shape[-2:]
        shape = kept.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=one) for one in _apart(requests)])
        mask = latent_mask(ready.mask, height, width).to(kept)
        with kept_outside(pipeline, kept, noise.to(kept), mask):
            yield

    @torch.no_grad()
    def _latents(self, picture: Image.Image) -> Tensor:
        """A picture's latents [1, channels, height, width], as a UNet sees them."""
        pipeline = self.pipeline
        vae = pipeline.vae
        pixels = pipeline.image_processor.preprocess(picture).to(pipeline._execution_device)
        overflows = vae.dtype == torch.float16 and vae.config.force_upcast
        if overflows:
            vae.to(torch.float32)
        try:
            latents = vae.encode(pixels.to(vae.dtype)).latent_dist.mode()
        finally:
            if overflows:
                vae.to(torch.float16)
        return (latents * vae.config.scaling_factor).to(pipeline.unet.dtype)

    # ---- models

    def _forget(self, extras: Extras) -> None:
        """Drop models that are not asked for any more."""
        wanted: set[tuple[str, ...]] = {("ControlNet", one.model) for one in extras.controls}
        if extras.t2i is not None:
            wanted.add(("T2I-Adapter", extras.t2i.model))
        if extras.style_picture is not None:
            wanted.add(("style", str(extras.style_picture.adapter), str(extras.style_picture.image_encoder)))
        for key in [key for key in self._models if key not in wanted]:
            del self._models[key]

    def _model(self, kind: str, place: str) -> nn.Module:
        if (kind, place) not in self._models:
            self._models[kind, place] = self._loaded(kind, place)
        return self._models[kind, place]

    def _loaded(self, kind: str, place: str) -> nn.Module:
        from diffusers import ControlNetModel, T2IAdapter

        classes: dict[str, Any] = {"ControlNet": ControlNetModel, "T2I-Adapter": T2IAdapter}
        folder = control_folder(place) if kind == "ControlNet" else hub.model_folder(place)
        unet = self.pipeline.unet
        try:
            with quietly():
                model = classes[kind].from_pretrained(folder, torch_dtype=unet.dtype, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise WeightsError(f"the {kind} {place} cannot be loaded ({reason}); give another") from error
        moved: nn.Module = model.to(self.pipeline._execution_device).requires_grad_(False).eval()
        return moved

    @contextmanager
    def _styled(self, style: StylePicture, guided: bool) -> Iterator[dict[str, Any]]:
        """A style picture's tokens in the UNet, and the call's arguments for it."""
        pipeline = self.pipeline
        key = ("style", str(style.adapter), str(style.image_encoder))
        if key not in self._models:
            self._models[key] = self._style_models(style)
        file, tower, processors, projection = self._models[key]
        for processor in processors.values():
            processor.scale = [style.scale]
        embeds = style_tokens(tower, file.form, style.image, guided).to(
            pipeline._execution_device, pipeline.unet.dtype
        )
        with processors_in(pipeline.unet, processors), image_projection_in(pipeline.unet, projection):
            yield {"ip_adapter_image_embeds": [embeds]}

    def _style_models(self, style: StylePicture) -> tuple[IPAdapterFile, ImageTower, Any, Any]:
        file = read_ip_adapter(style_file(style) or bundled(BUNDLED_STYLE))
        if file.needs_faces:
            raise WeightsError(f"{file.source} reads faces, not styles; give a base, plus or full IP-Adapter")
        check_fit(file, self.pipeline.unet)
        tower = ImageTower.open(style.image_encoder, self.pipeline.unet.dtype)
        width = tower.width if file.form == "base" else int(tower.config.hidden_size)
        if width != file.image_width:
            raise WeightsError(
                f"{file.source} is for images of width {file.image_width}, but the image encoder gives {width}; give "
                "the image encoder that the adapter was made for"
            )
        return file, tower.to(self.pipeline._execution_device), *loaded_ip_adapter(self.pipeline, file)


@torch.no_grad()
def style_tokens(tower: ImageTower, form: str, picture: Image.Image, guided: bool) -> Tensor:
    """What an IP-Adapter reads of a picture, the empty condition before it where there is guidance.

    Returns:
        [1 or 2, 1, width], for forms that see patches [1 or 2, 1, tokens, width].
    """
    side = int(tower.config.image_size)
    pixels = preprocess([picture], side).to(tower.device, next(tower.parameters()).dtype)
    if form == "base":
        seen = tower.embed(pixels)[None]
        nothing = torch.zeros_like(seen)
    else:
        seen, nothing = (tower.tokens(one)[None] for one in (pixels, torch.zeros_like(pixels)))
    return torch.cat([nothing, seen]) if guided else seen


# ---- LoRA


@contextmanager
def loras_in(pipeline: Any, loras: Sequence[Lora]) -> Iterator[None]:  # noqa: ANN401 - a pipeline with the mixin
    """LoRA beside PhotoMaker's own, during the context; the base's tensors come back themselves.

    Where PhotoMaker's LoRA is fused it stands apart meanwhile, for peft takes no other LoRA beside a fused one.

    Raises:
        WeightsError: A file is missing, damaged, or for another base.
    """
    if not loras:
        yield
        return
    names = [f"extra-{place}" for place in range(len(loras))]
    before = [(layer, list(layer.active_adapters)) for layer in _tuner_layers(pipeline)]
    with ExitStack() as stack:
        stack.enter_context(_unfused(pipeline.unet))
        stack.callback(_taken_out, pipeline, names, before)
        for name, lora in zip(names, loras, strict=True):
            _put_in(pipeline, name, lora)
        for layer in _tuner_layers(pipeline):
            for name, lora in zip(names, loras, strict=True):
                if name in layer.scaling:
                    layer.set_scale(name, lora.weight)
        yield


def _put_in(pipeline: Any, name: str, lora: Lora) -> None:  # noqa: ANN401
    path = lora_file(lora.source)
    check_lora_file(path, int(pipeline.unet.config.cross_attention_dim))
    try:
        with quietly():
            pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    except (ValueError, RuntimeError, KeyError, OSError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(
            f"the LoRA {lora.source} cannot be loaded into the base ({reason}); give one of this base"
        ) from error
    if not any(name in layer.scaling for layer in _tuner_layers(pipeline)):
        raise WeightsError(f"nothing in the LoRA {lora.source} fits this base; give a LoRA of an SDXL base")


def _taken_out(
    pipeline: Any,  # noqa: ANN401
    names: Sequence[str],
    before: Sequence[tuple[Any, list[str]]],
) -> None:
    there = {name for several in pipeline.get_list_adapters().values() for name in several}
    pipeline.delete_adapters([name for name in names if name in there])
    for layer, active in before:
        if list(layer.active_adapters) != active:
            layer.set_adapter(active, inference_mode=True)


@contextmanager
def _unfused(unet: nn.Module) -> Iterator[None]:
    """Have LoRA that is fused stand beside copies of the weights instead; the fused weights come back themselves."""
    layers = [layer for layer in unet.modules() if isinstance(layer, BaseTunerLayer) and layer.merged]
    kept = [(layer, layer.get_base_layer().weight, list(layer.merged_adapters)) for layer in layers]
    fused = [weight.data for _, weight, _ in kept]
    try:
        for layer, weight, _ in kept:
            weight.data = weight.data.clone()
            layer.unmerge()
        yield
    finally:
        for (layer, weight, merged), tensor in zip(kept, fused, strict=True):
            weight.data = tensor
            layer.merged_adapters = merged


def _tuner_layers(pipeline: Any) -> list[Any]:  # noqa: ANN401
    models = (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
    return [layer for model in models for layer in model.modules() if isinstance(layer, BaseTunerLayer)]


# ---- pictures


def _at_size(start: Start | None, size: tuple[int, int]) -> tuple[Image.Image | None, Image.Image | None]:
    if start is None:
        return None, None
    if start.mask is None:
        return fitted(start.image, size), None
    if start.mask.size != start.image.size:
        raise SettingsError(
            f"the mask is {start.mask.width} x {start.mask.height}, but the start picture is {start.image.width} x "
            f"{start.image.height}; give a mask of the picture's size"
        )
    return fitted(start.image, size), fitted(start.mask, size).convert("L")


def _control_arguments(controls: Sequence[Structure], size: tuple[int, int], starts: bool) -> dict[str, Any]:
    """One value for one ControlNet, lists for several, as the pipelines want it."""
    for one in controls:
        check_shape(one.image, size)
    several: dict[str, list[Any]] = {
        "control_image" if starts else "image": [fitted(one.image, size) for one in controls],
        "controlnet_conditioning_scale": [float(one.scale) for one in controls],
        "control_guidance_start": [float(one.start) for one in controls],
        "control_guidance_end": [float(one.stop) for one in controls],
    }
    return several if len(controls) > 1 else {name: values[0] for name, values in several.items()}


def _apart(requests: Sequence[Request]) -> list[torch.Generator]:
    """Randomness of each request's own, other than the noise that its picture starts from."""
    generators = generators_of(requests)
    for one in generators:
        one.manual_seed((one.initial_seed() + 1) ^ 0x5EED)
    return generators


def _marks(kind: Any) -> bool:  # noqa: ANN401 - a pipeline class
    from inspect import signature

    return "add_watermarker" in signature(kind.__init__).parameters

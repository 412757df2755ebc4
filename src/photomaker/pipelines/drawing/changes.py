"""Changes of a pipeline that undo themselves: weights of a person put in for as long as a context lasts.

Each context leaves the base bit for bit as it was, also when it ends in an error, and a weight of 0 draws what the base
alone draws, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import Attention
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from photomaker.errors import WeightsError
from photomaker.pipelines.drawing.opening import quietly

PERSON = "person"
"""The LoRA's name in the pipeline."""

Rewrite = Callable[[Tensor], Tensor]
_LORA_MODELS = ("unet", "text_encoder", "text_encoder_2")


@contextmanager
def weights_in(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Have other tensors in the places of a module's parameters.

    Args:
        module: Its own tensors are set aside and come back themselves.
        tensors: By name of the parameter, of the same shapes.
    """
    parameters = dict(module.named_parameters())
    kept = {name: parameters[name].data for name in tensors}
    try:
        for name, tensor in tensors.items():
            parameters[name].data = tensor.to(kept[name])
        yield
    finally:
        for name, own in kept.items():
            parameters[name].data = own


@contextmanager
def difference_in(module: nn.Module, difference: Mapping[str, Tensor], weight: float = 1.0) -> Iterator[None]:
    """Have `weight * difference` added to a module's parameters.

    Args:
        module: Its own tensors are set aside and come back themselves.
        difference: By name of the parameter.
        weight: How much of it.

    Raises:
        WeightsError: The module has no such parameter, or one of a different shape.
    """
    parameters = dict(module.named_parameters())
    check_difference(parameters, difference)
    sums = {
        name: parameters[name].data + weight * tensor.to(parameters[name].data)
        for name, tensor in difference.items()
    }
    with weights_in(module, sums):
        yield


def check_difference(parameters: Mapping[str, Tensor], difference: Mapping[str, Tensor]) -> None:
    """Compare names and shapes.

    Raises:
        WeightsError: One does not fit.
    """
    for name, tensor in difference.items():
        own = parameters.get(name)
        if own is None or own.shape != tensor.shape:
            there = "nothing of that name" if own is None else f"shape {tuple(own.shape)}"
            raise WeightsError(
                f"{name} has shape {tuple(tensor.shape)}, but the base has {there}; give the base that it was tuned on"
            )


@contextmanager
def learning(module: nn.Module, names: Sequence[str]) -> Iterator[Callable[[], dict[str, Tensor]]]:
    """Have copies of some parameters in float32 in their places, which may be tuned.

    Args:
        module: Its own tensors are set aside and come back themselves.
        names: Of the parameters.

    Yields:
        What tells the difference from the module's own tensors, by name, in float32 on the CPU.
    """
    parameters = {name: module.get_parameter(name) for name in names}
    kept = {name: (one.data, one.requires_grad) for name, one in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.data = parameter.data.float().clone()
            parameter.requires_grad_(True)
        yield lambda: {name: (one.detach() - kept[name][0].float()).cpu() for name, one in parameters.items()}
    finally:
        for name, parameter in parameters.items():
            parameter.grad = None
            parameter.data = kept[name][0]
            parameter.requires_grad_(kept[name][1])


@contextmanager
def rewritten(
    unet: nn.Module, rewrites: Mapping[int, tuple[Rewrite, Rewrite]], weight: float = 1.0
) -> Iterator[None]:
    """Have the tokens that go into keys and values of every attention of certain widths rewritten.

    The tokens x become x + weight * f(x) right before `to_k` and `to_v`, so that it goes together with any attention
    processor and with LoRA on these layers.

    Args:
        unet: The model.
        rewrites: Width of the tokens to f for keys and f for values.
        weight: How much of it.
    """

    def hook(rewrite: Rewrite) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            tokens = args[0]
            return (tokens + weight * rewrite(tokens.float()).to(tokens.dtype), *args[1:])

        return before

    with ExitStack() as stack:
        for attention in [one for one in unet.modules() if isinstance(one, Attention)]:
            both = rewrites.get(int(attention.to_k.in_features))
            for layer, rewrite in zip((attention.to_k, attention.to_v), both or (), strict=False):
                stack.callback(layer.register_forward_pre_hook(hook(rewrite)).remove)
        yield


@contextmanager
def processors_in(unet: Any, processors: Mapping[str, Any]) -> Iterator[None]:  # noqa: ANN401 - any diffusers UNet
    """Other attention processors during the context.

    Args:
        unet: A diffusers UNet.
        processors: Names as in `unet.attn_processors`; layers that are not named keep theirs. Those that have weights
            are moved to the UNet's device.
    """
    before = dict(unet.attn_processors)
    for processor in processors.values():
        if isinstance(processor, nn.Module):
            processor.to(unet.device)
    unet.set_attn_processor({**before, **processors})
    try:
        yield
    finally:
        unet.set_attn_processor(dict(before))


@contextmanager
def image_projection_in(unet: Any, projection: nn.Module) -> Iterator[None]:  # noqa: ANN401 - any diffusers UNet
    """An IP-Adapter's image projection in a UNet during the context."""
    before, kind = unet.encoder_hid_proj, unet.config.encoder_hid_dim_type
    unet.encoder_hid_proj = projection.to(unet.device)
    unet.config.encoder_hid_dim_type = "ip_image_proj"
    try:
        yield
    finally:
        unet.encoder_hid_proj = before
        unet.config.encoder_hid_dim_type = kind


def lora_parameters(unet: nn.Module) -> nn.Module:
    """The LoRA layers put in by `new_lora`, as one module, so that they can be tuned."""
    return nn.ModuleList(
        [layer for layer in unet.modules() if isinstance(layer, BaseTunerLayer) and PERSON in layer.scaling]
    )


@contextmanager
def new_lora(
    pipeline: StableDiffusionXLPipeline, rank: int, targets: tuple[str, ...], seed: int = 0
) -> Iterator[None]:
    """Have fresh LoRA layers, in float32, in the UNet; they start as no change.

    Args:
        pipeline: The base.
        rank: Rank, and alpha.
        targets: Endings of the names of the layers that get one.
        seed: Seed of their start.
    """
    with _taken_out_afterwards(pipeline):
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=list(targets), init_lora_weights="gaussian"
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pipeline.unet.add_adapter(config, adapter_name=PERSON)
        for name, parameter in pipeline.unet.named_parameters():
            if f".{PERSON}." in name:
                parameter.data = parameter.data.float()
        yield


@contextmanager
def lora_in(
    pipeline: StableDiffusionXLPipeline,
    source: Mapping[str, Tensor] | str | os.PathLike[str],
    weight: float = 1.0,
) -> Iterator[None]:
    """Have a LoRA in the pipeline, read by diffusers' own loader.

    Args:
        pipeline: The base.
        source: Tensors or a file, in any layout that diffusers reads: its own, kohya's, and older ones.
        weight: How much of it.

    Raises:
        WeightsError: It is not a LoRA, or is of a different base.
    """
    given: Any = dict(source) if isinstance(source, Mapping) else os.fspath(source)
    with _taken_out_afterwards(pipeline):
        try:
            with quietly():
                pipeline.load_lora_weights(given, adapter_name=PERSON)
        except (ValueError, RuntimeError, KeyError, OSError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            name = "the LoRA" if isinstance(source, Mapping) else f"the LoRA {source}"
            raise WeightsError(
                f"{name} cannot be loaded into the base ({reason}); give one of this base"
            ) from error
        _check_used(pipeline, given)
        pipeline.set_adapters([PERSON], [weight])
        yield


def _check_used(pipeline: StableDiffusionXLPipeline, given: Any) -> None:  # noqa: ANN401 - tensors or a place
    if not any(PERSON in getattr(getattr(pipeline, name), "peft_config", {}) for name in _LORA_MODELS):
        name = "of these tensors" if isinstance(given, dict) else f"in {given}"
        raise WeightsError(f"nothing {name} is a LoRA of this base; give a LoRA of an SDXL base")


def lora_tensors(pipeline: StableDiffusionXLPipeline) -> dict[str, Tensor]:
    """The LoRA that is in a pipeline, in diffusers' own layout, its scale folded in so that alpha is the rank."""
    state: dict[str, Tensor] = {}
    for part in _LORA_MODELS:
        model = getattr(pipeline, part)
        if PERSON not in getattr(model, "peft_config", {}):
            continue
        scales = {
            name: float(layer.scaling[PERSON])
            for name, layer in model.named_modules()
            if isinstance(layer, BaseTunerLayer) and PERSON in layer.scaling
        }
        for name, tensor in get_peft_model_state_dict(model, adapter_name=PERSON).items():
            layer, is_up, _ = name.partition(".lora_B.")
            scale = scales[layer] if is_up else 1.0
            state[f"{part}.{name}"] = (tensor.detach().float() * scale).cpu().contiguous()
    return state


@contextmanager
def _taken_out_afterwards(pipeline: StableDiffusionXLPipeline) -> Iterator[None]:
    if any(PERSON in names for names in pipeline.get_list_adapters().values()):
        raise WeightsError("a person's LoRA is in the pipeline already; use one at a time")
    others = bool(pipeline.get_list_adapters())
    try:
        yield
    finally:
        if others:
            pipeline.delete_adapters(PERSON)
        else:
            pipeline.unload_lora_weights()

"""Checks that an adapter fits a base model, before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from photomaker.errors import WeightsError

_KNOWN = {
    768: "a Stable Diffusion 1.x",
    1024: "a Stable Diffusion 2.x",
    1280: "an SDXL refiner",
    2048: "an SDXL",
}


def check_base(pipeline: Any, width: int, source: str) -> None:  # noqa: ANN401 - any diffusers pipeline
    """Compare the ID encoder's width with the base model's text condition.

    Args:
        pipeline: A pipeline with UNet and text encoders.
        width: Width D of the ID features.
        source: The adapter, for the message.

    Raises:
        WeightsError: The base has not the two text encoders of SDXL, or another width.
    """
    names = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    missing = [name for name in names if getattr(pipeline, name, None) is None]
    base_width = int(pipeline.unet.config.cross_attention_dim)
    kind = _KNOWN.get(base_width, "a")
    if missing:
        raise WeightsError(
            f"the base is {kind} model of width {base_width} without {', '.join(missing)}, but the adapter {source} is "
            f"for width {width}; PhotoMaker needs an SDXL base model"
        )
    if base_width != width:
        raise WeightsError(
            f"the base is {kind} model of width {base_width}, but the adapter {source} is for width {width}; "
            "give the base model that the adapter was made for"
        )


def check_lora(unet: nn.Module, lora: Mapping[str, Tensor], source: str) -> None:
    """Compare the LoRA's layers with the UNet's.

    Raises:
        WeightsError: A layer is missing in the UNet or has other widths there.
    """
    for name, tensor in lora.items():
        attention, _, rest = name.removeprefix("unet.").partition(".processor.to_")
        part = rest.split("_lora")[0]
        try:
            layer = unet.get_submodule(f"{attention}.to_{part}" + (".0" if part == "out" else ""))
        except AttributeError as error:
            raise WeightsError(
                f"the base model has no layer for {name} of {source}; give an SDXL base model"
            ) from error
        inner, outer = (layer.in_features, None) if ".down." in name else (None, layer.out_features)
        if (inner is not None and tensor.shape[1] != inner) or (
            outer is not None and tensor.shape[0] != outer
        ):
            raise WeightsError(
                f"{name} of {source} has shape {tuple(tensor.shape)}, but the base model's layer is "
                f"{layer.in_features} to {layer.out_features}; give the base model that the adapter was made for"
            )

"""FlashFace's checkpoint: two UNets, additional self-attention layers, and a first layer that reads the face's region.

The published file is one flat state dict under names of its own: `encoder`, `middle` and `decoder` are the drawing
UNet, `ref_encoder` and `ref_decoder` the one that reads the photos; `ori_*` are the first three once more. `ref_middle`
is in the file, but the published code reads with `middle` in both; files made here note that theirs is used.

Source: FlashFace, arXiv 2403.17008; the names of the released `flashface.ckpt`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from photomaker.encoders.adapter_file import check_finite, noted_config, write_adapter
from photomaker.encoders.unet_names import FLASHFACE, names_of, parts_of, taken
from photomaker.errors import WeightsError
from photomaker.weights import read_tensors

SD15_WIDTH = 768
"""Width of the published checkpoint, which was made for Stable Diffusion 1.5."""
_WIDTH = "middle.1.blocks.0.cross_attn.k.weight"
_FIRST = "encoder.0.weight"
_WANTED = (_FIRST, _WIDTH, "ref_encoder.0.weight", "time_embedding.0.weight", "head.2.weight")
_TWICE = ("ori_encoder.", "ori_middle.", "ori_decoder.")
_CODERS = ("encoder.", "middle.", "decoder.")


@dataclass(frozen=True)
class FlashFaceFile:
    """The content of a FlashFace file, under the published names.

    Attributes:
        tensors: All weights, without those that are there twice.
        config: What the trainer noted; empty in published files.
        source: Its origin, for messages.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = "the given weights"

    @property
    def width(self) -> int:
        """Width of the prompt embeddings that it is for."""
        return int(self.tensors[_WIDTH].shape[1])


@dataclass(frozen=True)
class FlashFaceWeights:
    """A FlashFace file's weights under the names of a base's UNet.

    Attributes:
        unet: Of the drawing UNet.
        reference: Of the UNet that reads the photos.
        second: Of the further self-attention layers: the layer's name to `q.weight`, `k.weight`, ...
        place: Of the first layer, for the map of the face's place [C, 1, k, k].
    """

    unet: Mapping[str, Tensor]
    reference: Mapping[str, Tensor]
    second: Mapping[str, Mapping[str, Tensor]]
    place: Tensor


def read_flashface(source: str | os.PathLike[str]) -> FlashFaceFile:
    """Read a FlashFace checkpoint: the published `.ckpt`, or flat safetensors of the same names.

    Raises:
        WeightsError: The file is missing, damaged, no FlashFace checkpoint, or has a number that is not finite.
    """
    path = Path(source)
    tensors = {name: one for name, one in read_tensors(path).items() if not name.startswith(_TWICE)}
    lacking = [name for name in _WANTED if name not in tensors or tensors[name].dim() < 2]  # noqa: PLR2004 - matrices
    if lacking:
        found = ", ".join(sorted({name.partition(".")[0] for name in tensors})[:5]) or "nothing"
        raise WeightsError(
            f"{path} is no FlashFace checkpoint: it has no {lacking[0]}, but {found}; give FlashFace's flashface.ckpt"
        )
    check_finite(tensors, str(path))
    return FlashFaceFile(tensors, noted_config(path), str(path))


def check_fit(file: FlashFaceFile, config: Mapping[str, Any]) -> None:
    """Compare a file with the settings of a base's UNet, before that is loaded.

    Raises:
        WeightsError: The base has prompts or latents of a different width.
    """
    width = int(config.get("cross_attention_dim") or 0)
    if file.width != width:
        meant = "Stable Diffusion 1.5" if file.width == SD15_WIDTH else f"a base of width {file.width}"
        raise WeightsError(
            f"{file.source} is for {meant}, but the base has width {width}; give a checkpoint that was trained for "
            "this base, as `photomaker train` makes them"
        )
    own, theirs = int(config.get("in_channels") or 0), int(file.tensors[_FIRST].shape[1])
    if theirs != own + 1:
        raise WeightsError(
            f"{file.source} reads {theirs} channels, but latents and face region are {own + 1}; give a "
            "checkpoint that was trained for this base"
        )


def _sides(unet: Any) -> tuple[dict[str, str], dict[str, str]]:  # noqa: ANN401 - a diffusers UNet
    """Published names of the drawing UNet's weights and of the reading one's, by diffusers' names."""
    names = names_of(unet, FLASHFACE)
    reading = {
        own: f"ref_{name}" if name.startswith(_CODERS) else name
        for own, name in names.items()
        if not own.startswith(("conv_norm_out", "conv_out"))
    }
    return names, reading


def weights_for(file: FlashFaceFile, unet: Any) -> FlashFaceWeights:  # noqa: ANN401 - a diffusers UNet
    """A file's weights under the names of a UNet.

    Raises:
        WeightsError: Some are missing or of other shapes.
    """
    names, reading = _sides(unet)
    if not file.config.get("ref_middle"):
        reading = {own: name.replace("ref_middle.", "middle.", 1) for own, name in reading.items()}
    first = file.tensors[_FIRST]
    tensors = {**file.tensors, _FIRST: first[:, :-1]}
    second = {
        layer: _second(file, f"{theirs}.self_attn_first", unet.get_submodule(layer))
        for layer, theirs in _second_names(unet).items()
    }
    return FlashFaceWeights(
        taken(unet, tensors, names, file.source),
        taken(unet, tensors, reading, file.source),
        second,
        first[:, -1:],
    )


def _second(file: FlashFaceFile, prefix: str, layer: Any) -> dict[str, Tensor]:  # noqa: ANN401 - an attention
    out = layer.to_out[0]
    wanted = {
        "q.weight": layer.to_q.weight,
        "k.weight": layer.to_k.weight,
        "v.weight": layer.to_v.weight,
        "o.weight": out.weight,
        "o.bias": out.bias,
    }
    given = {part: file.tensors.get(f"{prefix}.{part}") for part in wanted}
    lacking = [part for part, one in given.items() if one is None or one.shape != wanted[part].shape]
    if lacking:
        raise WeightsError(
            f"{file.source} has no {prefix}.{lacking[0]} of the base's shape; give the base model that it was made for"
        )
    return {part: file.tensors[f"{prefix}.{part}"] for part in wanted}


def _second_names(unet: Any) -> dict[str, str]:  # noqa: ANN401 - a diffusers UNet
    """Published names of the self-attention layers of the middle and second half, by diffusers' names."""
    parts, found = parts_of(unet, FLASHFACE), {}
    for name, _ in unet.named_modules():
        prefix = next((part for part in parts if name.startswith(f"{part}.")), None)
        if prefix is not None and name.endswith(".attn1") and not name.startswith("down_blocks."):
            number = name.split(".transformer_blocks.")[1].split(".")[0]
            found[name] = f"{parts[prefix]}.blocks.{number}.self_attn"
    return found


def export_flashface(
    path: str | os.PathLike[str],
    unet: Any,  # noqa: ANN401 - diffusers UNets
    reference: Any,  # noqa: ANN401 - as above
    second: Mapping[str, Mapping[str, Tensor]],
    place: Tensor,
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """Write a checkpoint under the published names, as flat safetensors.

    Args:
        path: File to write.
        unet: The drawing UNet.
        reference: The UNet that reads the photos.
        second: See `FlashFaceWeights`.
        place: See `FlashFaceWeights`.
        config: Noted in the file.
        dtype: Precision of the file; None keeps that of the weights.

    Raises:
        WeightsError: A weight is not finite.
    """
    names, reading = _sides(unet)
    own, read = dict(unet.named_parameters()), dict(reference.named_parameters())
    # the time embedding is the drawing UNet's in the file; both have the same
    flat = {theirs: read[name] for name, theirs in reading.items()} | {
        theirs: own[name] for name, theirs in names.items()
    }
    flat[_FIRST] = torch.cat([own["conv_in.weight"], place.to(own["conv_in.weight"])], dim=1)
    for layer, theirs in _second_names(unet).items():
        flat |= {f"{theirs}.self_attn_first.{part}": one for part, one in second[layer].items()}
    return write_adapter(path, flat, {"ref_middle": True, **(config or {})}, dtype)

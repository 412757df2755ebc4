"""FastComposer's encoder and its files, in the layout of the published state dict.

Source: FastComposer, arXiv 2305.10431, sections 4.1 and 4.2; the names of the released `pytorch_model.bin`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from photomaker.encoders.adapter_file import check_finite, noted_config, vision_sizes, write_adapter
from photomaker.encoders.fusion import FuseModule
from photomaker.errors import WeightsError
from photomaker.weights import read_sections

_NOTED = ("num_attention_heads", "hidden_act")
SD15_WIDTH = 768
"""Width of the published checkpoint, which was made for Stable Diffusion 1.5."""


class FastComposerEncoder(nn.Module):
    """Image encoder and fusion: a person's photo as one vector, fused with the class word's token.

    Args:
        config: A CLIP vision configuration, whose `projection_dim` is the width D of the prompt embeddings.
    """

    def __init__(self, config: CLIPVisionConfig) -> None:
        """Build the layers under the names of the released checkpoint."""
        super().__init__()
        self.image_encoder = CLIPVisionModelWithProjection(config)
        self.postfuse_module = FuseModule(int(config.projection_dim))

    @property
    def width(self) -> int:
        """Width D of a person's vector and of the prompt embeddings."""
        return int(self.image_encoder.config.projection_dim)

    @property
    def image_size(self) -> int:
        """Side of the image encoder's input in pixels."""
        return int(self.image_encoder.config.image_size)

    def encode_photos(self, pixels: Tensor) -> Tensor:
        """Vectors [photos, D] of normalised photos [photos, 3, size, size]."""
        return self.image_encoder(pixels).image_embeds


@dataclass(frozen=True)
class FastComposerFile:
    """The content of a FastComposer file.

    Attributes:
        image_encoder: `vision_model.*` and `visual_projection.weight` [D, hidden].
        postfuse_module: `mlp1.*`, `mlp2.*`, `layer_norm.*`.
        unet: Weights of the UNet that were trained: all in the published file, those of the attention in ours.
        config: What the trainer noted; empty in published files.
        source: Its origin, for messages.
    """

    image_encoder: Mapping[str, Tensor]
    postfuse_module: Mapping[str, Tensor]
    unet: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = "the given weights"

    @property
    def width(self) -> int:
        """Width D of the prompt embeddings that it is for."""
        return int(self.image_encoder["visual_projection.weight"].shape[0])

    def build_encoder(self) -> FastComposerEncoder:
        """Image encoder and fusion with these weights, in evaluation mode.

        Raises:
            WeightsError: Tensors are missing, left over or of other shapes.
        """
        sizes: dict[str, Any] = {
            **vision_sizes(self.image_encoder),
            "projection_dim": self.width,
            **{name: self.config[name] for name in _NOTED if name in self.config},
        }
        encoder = FastComposerEncoder(CLIPVisionConfig(**sizes))
        state = {f"image_encoder.{name}": tensor for name, tensor in self.image_encoder.items()}
        state |= {f"postfuse_module.{name}": tensor for name, tensor in self.postfuse_module.items()}
        try:
            encoder.load_state_dict(state)
        except RuntimeError as error:
            detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise WeightsError(
                f"the encoder in {self.source} does not fit its sizes: {detail[:200]}"
            ) from error
        return encoder.requires_grad_(False).eval()


def read_fastcomposer(source: str | os.PathLike[str]) -> FastComposerFile:
    """Read a FastComposer checkpoint: the published `.bin`, or flat safetensors of the same names.

    `text_encoder` and `vae`, which were not trained, are left out: they are the base's.

    Raises:
        WeightsError: The file is missing, damaged, no FastComposer checkpoint, or has a number that is not finite.
    """
    path = Path(source)
    sections = read_sections(path)
    wanted = ("image_encoder", "postfuse_module", "unet")
    lacking = [name for name in wanted if not sections.get(name)]
    if lacking:
        names = ", ".join(sorted(sections)[:5]) or "nothing"
        raise WeightsError(
            f"{path} is not a FastComposer checkpoint: it has no `{lacking[0]}` weights, but {names}"
        )
    encoder, fusion, unet = (
        # older libraries saved a table of numbers beside the weights
        {name: one for name, one in sections[part].items() if not name.endswith("position_ids")}
        for part in wanted
    )
    check_finite({**encoder, **fusion, **unet}, str(path))
    try:
        vision_sizes(encoder)
        encoder["visual_projection.weight"]
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a FastComposer checkpoint: its image encoder lacks {error}"
        ) from error
    return FastComposerFile(encoder, fusion, unet, noted_config(path), str(path))


def check_fit(file: FastComposerFile, unet: Any) -> None:  # noqa: ANN401 - a diffusers UNet
    """Compare a file with the base it is to be put into.

    Raises:
        WeightsError: The base has another width or other layers.
    """
    width = int(unet.config.cross_attention_dim)
    if file.width != width:
        meant = "Stable Diffusion 1.5" if file.width == SD15_WIDTH else f"a base of width {file.width}"
        raise WeightsError(
            f"{file.source} is for {meant}, but the base has width {width}; give a checkpoint that was trained for "
            "this base, as `photomaker train` makes them"
        )
    own = dict(unet.named_parameters())
    for name, tensor in file.unet.items():
        if name not in own or own[name].shape != tensor.shape:
            got = tuple(own[name].shape) if name in own else "no such layer"
            raise WeightsError(
                f"unet.{name} of {file.source} has shape {tuple(tensor.shape)}, but the base model has {got}; give the "
                "base model that the checkpoint was made for"
            )


def export_fastcomposer(
    path: str | os.PathLike[str],
    encoder: FastComposerEncoder,
    unet: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """Write a checkpoint under the published names, as flat safetensors.

    Args:
        path: File to write.
        encoder: Image encoder and fusion.
        unet: The UNet's trained weights, under its own names.
        config: Noted in the file.
        dtype: Precision of the file; None keeps that of the weights.

    Raises:
        WeightsError: A weight is not finite.
    """
    flat = dict(encoder.state_dict()) | {f"unet.{name}": tensor for name, tensor in unet.items()}
    noted = {name: getattr(encoder.image_encoder.config, name) for name in _NOTED}
    return write_adapter(path, flat, noted | dict(config or {}), dtype)

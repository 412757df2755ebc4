"""AnyDoor's checkpoint: a detail extractor, the UNet's decoder half, and a projection of the subject's tokens.

The published file is a Lightning checkpoint under latent diffusion's names: `control_model`, `model.diffusion_model`,
`cond_stage_model.projector` and, frozen, `first_stage_model` and DINOv2 as `cond_stage_model.model`. What was frozen is
left out here: it is the base's, and the tower is opened by itself.

Source: AnyDoor, arXiv 2307.09481.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomaker.encoders.adapter_file import check_finite, noted_config, write_adapter
from photomaker.encoders.unet_names import LDM, names_of, taken
from photomaker.errors import WeightsError
from photomaker.weights import read_pickle, read_tensors

TOWER = "facebook/dinov2-giant"
"""The image encoder of the published checkpoint."""
SD21_WIDTH = 1024
HINTS = (0, 4, 8, 12)
"""Layers of the detail extractor's first part whose widths are its settings."""
_CONTROL, _UNET, _PROJECTOR = "control_model.", "model.diffusion_model.", "cond_stage_model.projector."
_WIDTH = "control_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
_HINT = "control_model.input_hint_block.0.weight"
_WANTED = (_HINT, _WIDTH, "model.diffusion_model.out.2.weight", "cond_stage_model.projector.weight")
_TRAINED = ("up_blocks.", "conv_norm_out.", "conv_out.")


@dataclass(frozen=True)
class AnyDoorFile:
    """The content of an AnyDoor file, under the published names.

    Attributes:
        tensors: `control_model.*`, `model.diffusion_model.*` and `cond_stage_model.projector.*`.
        config: What the trainer noted; empty in published files.
        source: Its origin, for messages.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = "the given weights"

    @property
    def width(self) -> int:
        """Width of the tokens that the UNet reads."""
        return int(self.tensors[_WIDTH].shape[1])

    @property
    def tower_width(self) -> int:
        """Width of the tower's tokens."""
        return int(self.tensors[f"{_PROJECTOR}weight"].shape[1])

    def projector(self) -> nn.Linear:
        """What brings the tower's tokens to the UNet's width."""
        weight = self.tensors[f"{_PROJECTOR}weight"]
        made = nn.Linear(weight.shape[1], weight.shape[0])
        made.load_state_dict({"weight": weight.float(), "bias": self.tensors[f"{_PROJECTOR}bias"].float()})
        return made.requires_grad_(False).eval()


def read_anydoor(source: str | os.PathLike[str]) -> AnyDoorFile:
    """Read an AnyDoor checkpoint: the published `.ckpt`, or flat safetensors of the same names.

    Raises:
        WeightsError: The file is missing, damaged, no AnyDoor checkpoint, or has a number that is not finite.
    """
    path = Path(source)
    flat = _state(path)
    lacking = [name for name in _WANTED if name not in flat or flat[name].dim() < 2]  # noqa: PLR2004 - matrices
    if lacking:
        found = ", ".join(sorted({name.partition(".")[0] for name in flat})[:5]) or "nothing"
        raise WeightsError(
            f"{path} is not an AnyDoor checkpoint: it has no {lacking[0]}, but {found}; give AnyDoor's checkpoint"
        )
    own = {name: one for name, one in flat.items() if name.startswith((_CONTROL, _UNET, _PROJECTOR))}
    check_finite(own, str(path))
    return AnyDoorFile(own, noted_config(path), str(path))


def _state(path: Path) -> Mapping[str, Tensor]:
    """The weights of a file; a Lightning checkpoint has them beside its trainer's state, which is left alone."""
    if path.suffix == ".safetensors" or not path.is_file():
        return read_tensors(path)
    content = read_pickle(path)
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping):
        raise WeightsError(f"the state_dict of {path} holds no named tensors; download it again")
    return {str(name): one for name, one in state.items() if isinstance(one, Tensor)}


def check_fit(file: AnyDoorFile, config: Mapping[str, Any]) -> None:
    """Compare a file with the settings of a base's UNet, before that is loaded.

    Raises:
        WeightsError: The base has another width, or the detail extractor reads something else than collages.
    """
    width = int(config.get("cross_attention_dim") or 0)
    if file.width != width:
        meant = "Stable Diffusion 2.1" if file.width == SD21_WIDTH else f"a base of width {file.width}"
        raise WeightsError(
            f"{file.source} is for {meant}, but the base has width {width}; give a checkpoint that was trained for "
            "this base, as `photomaker train` makes them"
        )
    weight, bias = (file.tensors.get(f"{_PROJECTOR}{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or len(weight) != width or bias.shape != (width,):
        raise WeightsError(
            f"the token projection in {file.source} does not give the width {width} of the base; download it again"
        )
    channels = int(file.tensors[_HINT].shape[1])
    if channels != 4:  # noqa: PLR2004 - colours and mask
        raise WeightsError(
            f"{file.source} reads pictures of {channels} channels, but a collage with its mask has 4; give AnyDoor's "
            "checkpoint"
        )


def _control_names(net: Any) -> dict[str, str]:  # noqa: ANN401 - a diffusers ControlNet
    """Published names of a detail extractor's weights, by diffusers' names."""
    found, embedding = names_of(net, LDM), "controlnet_cond_embedding."
    for name, _ in net.named_parameters():
        kind, _, rest = name.partition(".")
        if kind == "controlnet_down_blocks":
            number, part = rest.split(".")
            found[name] = f"zero_convs.{number}.0.{part}"
        elif kind == "controlnet_mid_block":
            found[name] = f"middle_block_out.0.{rest}"
        elif name.startswith(embedding):
            found[name] = f"input_hint_block.{_hint_layer(rest, len(net.controlnet_cond_embedding.blocks))}"
    return {name: f"{_CONTROL}{theirs}" for name, theirs in found.items()}


def _hint_layer(rest: str, blocks: int) -> str:
    layer, _, part = rest.rpartition(".")
    number = {"conv_in": 0, "conv_out": 2 + 2 * blocks}.get(layer)
    return f"{2 + 2 * int(layer.split('.')[1]) if number is None else number}.{part}"


def _unet_names(unet: Any) -> dict[str, str]:  # noqa: ANN401 - a diffusers UNet
    """Published names of the UNet's trained weights, by diffusers' names."""
    return {
        name: f"{_UNET}{theirs}" for name, theirs in names_of(unet, LDM).items() if name.startswith(_TRAINED)
    }


def detail_net(file: AnyDoorFile, unet: Any) -> Any:  # noqa: ANN401 - diffusers models
    """The detail extractor, a ControlNet over collages, in the UNet's precision.

    Raises:
        WeightsError: Its weights are missing or do not fit the base.
    """
    hints = []
    for place in HINTS:
        weight = file.tensors.get(f"{_CONTROL}input_hint_block.{place}.weight")
        if weight is None:
            raise WeightsError(
                f"{file.source} has no {_CONTROL}input_hint_block.{place}.weight; download it again"
            )
        hints.append(int(weight.shape[0]))
    net = new_detail_net(unet, tuple(hints))
    net.load_state_dict(taken(net, file.tensors, _control_names(net), file.source))
    return net.to(unet.dtype).requires_grad_(False).eval()


def new_detail_net(unet: Any, hints: tuple[int, ...]) -> Any:  # noqa: ANN401 - diffusers models
    """A detail extractor that is a copy of the UNet's first half and adds nothing, in float32."""
    from diffusers import ControlNetModel

    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=hints, conditioning_channels=4
    ).float()


def unet_weights(file: AnyDoorFile, unet: Any) -> dict[str, Tensor]:  # noqa: ANN401 - a diffusers UNet
    """The half of the UNet that doubles, under diffusers' names.

    Raises:
        WeightsError: Weights are missing or do not fit the base.
    """
    return taken(unet, file.tensors, _unet_names(unet), file.source)


def trained_part(unet: Any) -> list[Tensor]:  # noqa: ANN401 - a diffusers UNet
    """The UNet's weights that are trained."""
    return [one for name, one in unet.named_parameters() if name.startswith(_TRAINED)]


def export_anydoor(
    path: str | os.PathLike[str],
    unet: Any,  # noqa: ANN401 - diffusers models
    net: Any,  # noqa: ANN401 - as above
    projector: nn.Linear,
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """Write a checkpoint under the published names, as flat safetensors, without what is frozen.

    Args:
        path: File to write.
        unet: The base's UNet with its trained half.
        net: The detail extractor.
        projector: Of the subject's tokens.
        config: Noted in the file.
        dtype: Precision of the file; None keeps that of the weights.

    Raises:
        WeightsError: A weight is not finite.
    """
    own, control = dict(unet.named_parameters()), dict(net.named_parameters())
    flat: dict[str, Tensor] = {theirs: own[name] for name, theirs in _unet_names(unet).items()}
    flat |= {theirs: control[name] for name, theirs in _control_names(net).items()}
    flat |= {f"{_PROJECTOR}{name}": one for name, one in projector.named_parameters()}
    return write_adapter(path, flat, config or {}, dtype)

"""PhotoMaker adapter files: ID encoder and LoRA weights in one file, official `.bin` or flat safetensors."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig

from photomaker.encoders.id_encoder import FULL_SIZE, OPTIONS, PhotoMakerIDEncoder, vision_config
from photomaker.encoders.id_encoder_v2 import (
    FULL_SIZE_V2,
    PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken,
    vision_config_v2,
)
from photomaker.errors import WeightsError
from photomaker.files import atomic
from photomaker.outside import read_object
from photomaker.weights import read_metadata, read_tensors

SECTIONS = ("id_encoder", "lora_weights")
NOTES_FORMAT = "photomaker-adapter-1"
"""Format of an adapter file's notes; a file that names none is official or has this format."""
HEAD_WIDTH = 64  # of every CLIP image encoder; only needed where a file does not state its sizes
V2_MARK = "qformer_perceiver."
ENCODERS: dict[str, tuple[type[PhotoMakerIDEncoder], Callable[..., CLIPVisionConfig], tuple[str, ...]]] = {
    "v1": (PhotoMakerIDEncoder, vision_config, tuple(FULL_SIZE)),
    "v2": (PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken, vision_config_v2, (*FULL_SIZE, *FULL_SIZE_V2)),
}
"""Version to the encoder's class, what makes its configuration, and the names of its sizes."""
_PATCH = "vision_model.embeddings.patch_embedding.weight"
_POSITIONS = "vision_model.embeddings.position_embedding.weight"


@dataclass(frozen=True)
class AdapterFile:
    """The content of an adapter file.

    Attributes:
        version: "v1" or "v2", from the key names.
        id_encoder: State dict of the ID encoder.
        lora: LoRA weights under the official names `unet.<attention>.processor.to_q_lora.down.weight`.
        config: Sizes of the ID encoder (names of `FULL_SIZE`), and what the trainer noted beside them, such as
            `defaults` (guidance, merge, background).
        source: Its origin, for messages.
    """

    version: str
    id_encoder: Mapping[str, Tensor]
    lora: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str = "the given weights"

    def encoder_sha256(self) -> str:
        """Hash over names, types, shapes and values of the ID encoder's tensors, independent of file form and order."""
        digest = hashlib.sha256()
        for name in sorted(self.id_encoder):
            tensor = self.id_encoder[name].contiguous().cpu()
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.dim() else b"")
        return digest.hexdigest()

    def build_encoder(self) -> PhotoMakerIDEncoder:
        """The ID encoder with these weights, in their own precision, in evaluation mode.

        Raises:
            WeightsError: The version is not supported, or tensors are missing, left over or of other shapes.
        """
        from accelerate import init_empty_weights

        if self.version not in ENCODERS:
            raise WeightsError(
                f"{self.source} is a PhotoMaker {self.version} adapter; known are {', '.join(ENCODERS)}"
            )
        kind, configure, names = ENCODERS[self.version]
        known = (*names, *OPTIONS, "hidden_act")
        sizes = {name: value for name, value in self.config.items() if name in known}
        with init_empty_weights(include_buffers=False):
            encoder = kind(configure(**sizes))
        # in the configuration they go where the encoder goes: to other pipelines and into saved ones
        encoder.config.weights_sha256 = self.encoder_sha256()
        encoder.config.adapter_notes = dict(self.config)
        try:
            encoder.load_state_dict(dict(self.id_encoder), strict=True, assign=True)
        except RuntimeError as error:
            detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise WeightsError(
                f"the ID encoder in {self.source} does not fit its sizes: {detail[:200]}"
            ) from error
        return encoder.requires_grad_(False).eval()


def read_adapter(
    source: str | os.PathLike[str] | Mapping[str, Any], version: str | None = None
) -> AdapterFile:
    """Read an adapter.

    Args:
        source: Path of a `.safetensors` file, or of any other file that `torch.load(weights_only=True)` reads, or the
            mapping that such a file holds: two sections in any order, or flat keys with the sections as prefixes.
        version: "v1" or "v2" overrides what the keys say.

    Raises:
        WeightsError: The file is missing, truncated, no adapter, or has a number that is not finite.
    """
    if isinstance(source, Mapping):
        flat, config, name = _flat(source), {}, "the given weights"
    else:
        flat, config, name = read_tensors(source), noted_config(Path(source)), str(source)
    id_encoder, lora = (_section(flat, section, name) for section in SECTIONS)
    check_finite({**id_encoder, **lora}, name)
    told = "v2" if _is_v2(id_encoder) else "v1"
    sizes = infer_sizes(id_encoder, name)
    return AdapterFile(version or told, id_encoder, lora, sizes | config, name)


def infer_sizes(id_encoder: Mapping[str, Tensor], source: str = "the given weights") -> dict[str, Any]:
    """Sizes of an ID encoder, from its tensors' shapes.

    Raises:
        WeightsError: A tensor that says a size is missing.
    """
    try:
        return (
            vision_sizes(id_encoder)
            | {
                "projection_dim": id_encoder["visual_projection.weight"].shape[0],
                "projection_dim_2": id_encoder["visual_projection_2.weight"].shape[0],
            }
            | (_resampler_sizes(id_encoder) if _is_v2(id_encoder) else {})
        )
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{source} is not a PhotoMaker adapter: its ID encoder lacks {error}") from error


def vision_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes of a CLIP image encoder, from the shapes of its tensors, which are named `vision_model.`...

    Raises:
        KeyError: A tensor that says a size is missing.
        ValueError: One has another number of dimensions, or there is no layer.
    """
    hidden, _, patch, _ = state[_PATCH].shape
    side = math.isqrt(state[_POSITIONS].shape[0] - 1)
    numbers = [
        int(found[1]) for key in state if (found := re.match(r"vision_model\.encoder\.layers\.(\d+)\.", key))
    ]
    return {
        "hidden_size": hidden,
        "intermediate_size": state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": max(numbers) + 1,
        "num_attention_heads": max(1, hidden // HEAD_WIDTH),
        "patch_size": patch,
        "image_size": side * patch,
    }


def _is_v2(id_encoder: Mapping[str, Tensor]) -> bool:
    return any(key.startswith(V2_MARK) for key in id_encoder)


def _resampler_sizes(id_encoder: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a V2 encoder's own part; the shapes do not show the width of a head."""
    hidden, face = id_encoder[f"{V2_MARK}token_proj.0.weight"].shape
    width = id_encoder[f"{V2_MARK}token_norm.weight"].shape[0]
    layers = f"{V2_MARK}perceiver_resampler.layers."
    return {
        "id_embeddings_dim": face,
        "num_tokens": id_encoder[f"{V2_MARK}token_proj.2.weight"].shape[0] // width,
        "resampler_depth": 1
        + max(int(key.removeprefix(layers).split(".")[0]) for key in id_encoder if key.startswith(layers)),
        "resampler_head": min(width, FULL_SIZE_V2["resampler_head"]),
        "resampler_ff": id_encoder[f"{layers}0.1.1.weight"].shape[0] // width,
        "resampler_ratio": hidden // face,
    }


def export_adapter(
    path: str | os.PathLike[str],
    id_encoder: nn.Module | Mapping[str, Tensor],
    unet_lora_state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = torch.float16,
    lora_scale: float = 1.0,
) -> Path:
    """Write an adapter as flat safetensors, atomically.

    Args:
        path: File to write.
        id_encoder: The ID encoder, or its state dict.
        unet_lora_state: LoRA weights of the UNet, in peft's names (`get_peft_model_state_dict(unet)`) or official ones.
        config: Noted in the file beside the sizes: `version`, `defaults`, and whatever the trainer wants to say.
        dtype: Precision of the file; None keeps that of the weights.
        lora_scale: peft's `lora_alpha / r`, folded into the weights, because the official format has no alpha.

    Raises:
        WeightsError: A weight is not finite, or a LoRA name is of neither form.
    """
    state = id_encoder.state_dict() if isinstance(id_encoder, nn.Module) else dict(id_encoder)
    sizes = infer_sizes(state)
    if isinstance(id_encoder, PhotoMakerIDEncoder):
        names = (*ENCODERS[id_encoder.version][2], "hidden_act")
        sizes |= {name: getattr(id_encoder.config, name) for name in names}
        sizes |= {
            name: getattr(id_encoder.config, name) for name in OPTIONS if hasattr(id_encoder.config, name)
        }
        sizes["version"] = id_encoder.version
    flat = {f"id_encoder.{name}": tensor for name, tensor in state.items()}
    flat |= {
        f"lora_weights.{name}": tensor for name, tensor in official_lora(unet_lora_state, lora_scale).items()
    }
    return write_adapter(path, flat, sizes | dict(config or {}), dtype)


def write_adapter(
    path: str | os.PathLike[str],
    flat: Mapping[str, Tensor],
    config: Mapping[str, Any],
    dtype: torch.dtype | None = torch.float16,
) -> Path:
    """Write the weights of any method as flat safetensors, atomically.

    Args:
        path: File to write.
        flat: Weights under flat names, the section first.
        config: Plain JSON data, noted in the file; `noted_config` reads it back.
        dtype: Precision of the file; None keeps that of the weights.

    Raises:
        WeightsError: A weight is not finite.
    """
    from safetensors.torch import save

    path = Path(path)
    tensors = {
        name: tensor.detach().cpu().to(dtype or tensor.dtype).contiguous().clone()
        for name, tensor in flat.items()
    }
    check_finite(tensors, "the adapter to be written")
    metadata = {
        "format": "pt",
        "notes_format": NOTES_FORMAT,
        "config": json.dumps(dict(config), sort_keys=True),
    }
    with atomic(path) as file:
        file.write(save(tensors, metadata=metadata))
    return path


def official_lora(state: Mapping[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    """LoRA weights of a UNet's attention layers under the official names.

    Args:
        state: Names as peft gives them (`….attn1.to_q.lora_A.weight`, with or without a leading `unet.`), or official.
        scale: Factor on the update, put into the up matrices.

    Returns:
        `unet.<attention>.processor.to_{q,k,v,out}_lora.{down,up}.weight`: down [rank, in], up [out, rank].

    Raises:
        WeightsError: A name is of neither form.
    """
    return {
        _official_name(name): tensor * scale if _is_up(name) else tensor for name, tensor in state.items()
    }


def _is_up(name: str) -> bool:
    return name.endswith((".lora_B.weight", ".up.weight"))


def _official_name(name: str) -> str:
    bare = name.removeprefix("base_model.model.").removeprefix("unet.")
    if re.fullmatch(r".+\.processor\.to_(q|k|v|out)_lora\.(down|up)\.weight", bare):
        return f"unet.{bare}"
    found = re.fullmatch(r"(.+)\.to_(q|k|v|out)(?:\.0)?\.lora_([AB])(?:\.[\w-]+)?\.weight", bare)
    if found is None:
        raise WeightsError(
            f"{name} is not a LoRA weight of an attention layer; train LoRA on to_q, to_k, to_v and to_out.0"
        )
    attention, part, side = found.groups()
    return f"unet.{attention}.processor.to_{part}_lora.{'down' if side == 'A' else 'up'}.weight"


def noted_config(path: Path) -> dict[str, Any]:
    """The notes in an adapter file; empty for official files.

    Raises:
        WeightsError: The note is not JSON, or of a format that this version does not know.
    """
    noted = read_metadata(path) if path.suffix == ".safetensors" else {}
    known = noted.get("notes_format", NOTES_FORMAT)
    if known != NOTES_FORMAT:
        raise WeightsError(
            f"the notes in {path} have format {known}, but this version reads {NOTES_FORMAT}; update photomaker"
        )
    try:
        return read_object(noted.get("config", "{}"))
    except ValueError as error:
        raise WeightsError(f"the `config` noted in {path} is not JSON; export the adapter again") from error


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """Loaded weights, with sections or already flat, under flat names."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= (
            {f"{name}.{inner}": one for inner, one in value.items()}
            if isinstance(value, Mapping)
            else {name: value}
        )
    return flat


def _section(flat: Mapping[str, Any], section: str, source: str) -> dict[str, Tensor]:
    found = {
        name.removeprefix(f"{section}."): value
        for name, value in flat.items()
        if name.startswith(f"{section}.")
    }
    if not found or not all(isinstance(value, Tensor) for value in found.values()):
        names = ", ".join(sorted({str(name).split(".")[0] for name in flat})[:5]) or "nothing"
        raise WeightsError(
            f"{source} is not a PhotoMaker adapter: it has no `{section}` weights, but {names}"
        )
    return found


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights with numbers that are not finite.

    Raises:
        WeightsError: There is one.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{source} has numbers that are not finite in {name}; download or train it again"
            )

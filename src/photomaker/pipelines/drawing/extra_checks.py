"""Checks extras before a model is loaded: their files must exist and fit the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from photomaker import hub
from photomaker.errors import SettingsError, WeightsError
from photomaker.outside import read_object
from photomaker.pipelines.structures.structures import control_folder, drawing_of
from photomaker.types import Extras, Sampling, Structure, StylePicture

_DOWN = ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down")


def check_extras(base: Path, extras: Extras, sampling: Sampling) -> None:
    """Look at the files that extras name; what stands on the hub is downloaded.

    Args:
        base: The base's folder.
        extras: What is asked for.
        sampling: With which steps.

    Raises:
        WeightsError: A file is missing, is of a different kind, or is for another base.
        SettingsError: The start picture's strength leaves no step to draw.
    """
    unet = _settings(base / "unet", "base model")
    for lora in extras.loras:
        check_lora_file(lora_file(lora.source), int(unet.get("cross_attention_dim", 0)))
    for control in extras.controls:
        _check_control(control, unet)
    if extras.t2i is not None:
        _check_t2i(extras.t2i, unet)
    if extras.style_picture is not None:
        style_file(extras.style_picture)
    if extras.start is not None and int(sampling.steps * extras.start.strength) < 1:
        raise SettingsError(
            f"strength {extras.start.strength:g} of {sampling.steps} steps is less than one; give more of either"
        )


def lora_file(source: str) -> Path:
    """The file of a LoRA; a hub id with the file's name is downloaded.

    Raises:
        WeightsError: It is not a file and no such id, or no safetensors file.
    """
    path = hub.named_file(source, "LoRA", "owner/name/lora.safetensors")
    if path.suffix != ".safetensors":
        raise WeightsError(f"the LoRA {source} is not a safetensors file; save or download it in that form")
    return path


def check_lora_file(path: Path, width: int) -> None:
    """Look into a LoRA's header.

    Args:
        path: The file.
        width: Of the base's text embeddings, its `cross_attention_dim`.

    Raises:
        WeightsError: It is damaged, no LoRA, or for another base.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"the LoRA {path} is damaged or not a safetensors file; download it again"
        ) from error
    downs = {name: shape for name, shape in shapes.items() if any(part in name for part in _DOWN)}
    if not downs:
        raise WeightsError(f"{path} has no LoRA; give a LoRA file of an SDXL base")
    own = _widths(downs)
    if own and own != {width}:
        raise WeightsError(
            f"the LoRA {path} is for a base of width {min(own)}, but this one has {width}; give a LoRA of this base"
        )


def _widths(downs: dict[str, tuple[int, ...]]) -> set[int]:
    """Widths of the text embeddings that its cross-attention reads."""
    read = [shape for name, shape in downs.items() if "attn2" in name and ("to_k" in name or "to_v" in name)]
    return {shape[1] for shape in read if len(shape) > 1}


def _check_control(control: Structure, unet: dict[str, Any]) -> None:
    folder = control_folder(control.model)
    config = _settings(folder, "ControlNet")
    kind = config.get("_class_name")
    if kind != "ControlNetModel":
        raise WeightsError(
            f"{control.model} is a {kind or 'model of unknown kind'}, not a ControlNet; give a ControlNet"
        )
    for name in ("cross_attention_dim", "projection_class_embeddings_input_dim", "in_channels"):
        _same(config, unet, name, f"the ControlNet {control.model}")
    if control.kind is not None:
        drawing_of(folder, control.kind)


def _check_t2i(t2i: Structure, unet: dict[str, Any]) -> None:
    config = _settings(hub.model_folder(t2i.model), "T2I-Adapter")
    kind = config.get("_class_name")
    if kind != "T2IAdapter":
        raise WeightsError(
            f"{t2i.model} is a {kind or 'model of unknown kind'}, not a T2I-Adapter; give a T2I-Adapter"
        )
    own, wanted = config.get("channels"), unet.get("block_out_channels")
    if not isinstance(own, list) or not isinstance(wanted, list) or own[: len(wanted)] != wanted:
        raise WeightsError(
            f"the T2I-Adapter {t2i.model} has channels {own}, but the base has {wanted}; give one made for this base"
        )


def style_file(style: StylePicture) -> Path | None:
    """The file of the IP-Adapter that reads a style picture; None is the bundled one.

    Raises:
        WeightsError: It cannot be found.
    """
    if style.adapter is None:
        return None
    return hub.named_file(style.adapter, "IP-Adapter", "owner/name/ip-adapter.safetensors")


def _same(config: dict[str, Any], unet: dict[str, Any], name: str, what: str) -> None:
    if config.get(name) != unet.get(name):
        raise WeightsError(
            f"{what} has {name} {config.get(name)}, but the base has {unet.get(name)}; give one made for this base"
        )


def _settings(folder: Path, what: str) -> dict[str, Any]:
    try:
        return read_object((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"the settings of the {what} {folder} cannot be read; give a diffusers folder"
        ) from error

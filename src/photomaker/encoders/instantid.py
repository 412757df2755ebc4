"""InstantID's checkpoint: an adapter of image tokens that reads a face embedding, with an IdentityNet beside it.

The published layout is a folder: `ip-adapter.bin` with the sections `image_proj` (a resampler) and `ip_adapter` (second
keys and values), and `ControlNetModel/` in diffusers' layout.

Source: InstantID, arXiv 2401.07519.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from photomaker.encoders.ip_adapter import IPAdapterFile, form_of, read_ip_adapter
from photomaker.errors import WeightsError
from photomaker.hub import hub_file, named_file
from photomaker.outside import read_file
from photomaker.weights import read_sections

FILES = ("ip-adapter.bin", "ip-adapter.safetensors")
"""The adapter's file: as published, and as it is written here."""
NET = "ControlNetModel"
"""Folder of the IdentityNet, beside the adapter's file."""
NET_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
HUB = "InstantX/InstantID"
RECOGNISER = "antelopev2"
"""InsightFace's pack whose face embeddings the published adapter reads."""
PATCHES = frozenset({768, 1024, 1280, 1664})
"""Widths of the patch tokens of CLIP's image encoders: what IP-Adapters of the plus form read."""
SAME = ("in_channels", "cross_attention_dim", "projection_class_embeddings_input_dim")
"""Settings in which an IdentityNet and the UNet of its base must agree."""
REMEDY = f"give InstantID's {FILES[0]}, with {NET}/ beside it"


def instantid_file(place: str | os.PathLike[str]) -> Path:
    """The adapter file, after checking its content and its IdentityNet; both are downloaded from the hub.

    Args:
        place: The file, the folder that holds it, or a hub id, with or without the file's name.

    Raises:
        WeightsError: A part is missing, cannot be downloaded, or is of another method.
    """
    path = Path(place)
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).is_file()]
        if not found:
            raise WeightsError(f"the folder {place} has no {FILES[0]}; {REMEDY}")
        path = found[0]
    elif not path.is_file():
        path = _fetched(path.as_posix())
    _check_kind(path)
    return path


def _fetched(name: str) -> Path:
    if name.count("/") == 1 and not name.endswith((".bin", ".safetensors")):
        name = f"{name}/{FILES[0]}"
    path = named_file(name, "adapter", f"{HUB}/{FILES[0]}")
    repository = "/".join(name.split("/")[:2])
    for part in NET_FILES:
        hub_file(repository, part, NET)
    return path


def read_instantid(source: str | os.PathLike[str]) -> IPAdapterFile:
    """Read the adapter's file, whose layout is that of an IP-Adapter of the plus form.

    Raises:
        WeightsError: It is missing, damaged, of another method, or has no IdentityNet beside it.
    """
    _check_kind(Path(source))
    return read_ip_adapter(source)


def net_folder(file: str | os.PathLike[str]) -> Path:
    """The IdentityNet's folder, beside the adapter's file."""
    return Path(file).parent / NET


def _check_kind(path: Path) -> None:
    """Tell an adapter from those of the sister methods.

    Raises:
        WeightsError: It is one of theirs, or something else.
    """
    sections = read_sections(path)
    if not all(sections.get(name) for name in ("image_proj", "ip_adapter")):
        names = ", ".join(sorted(sections)[:5]) or "nothing"
        raise WeightsError(f"{path} is not an InstantID adapter: it holds {names}; {REMEDY}")
    form = _form(sections["image_proj"])
    if form != "plus" or int(sections["image_proj"]["proj_in.weight"].shape[-1]) in PATCHES:
        raise WeightsError(f"{path} is an IP-Adapter of the {form} form, not InstantID's; {REMEDY}")
    if not (net_folder(path) / NET_FILES[0]).is_file():
        raise WeightsError(f"there is no {NET}/{NET_FILES[0]} beside {path}; {REMEDY}")


def _form(image_proj: Mapping[str, Tensor]) -> str:
    """The form that a file of this layout has; one without the resampler's names is of none."""
    form = form_of(image_proj)
    if form == "plus" and "proj_in.weight" not in image_proj:
        return "unknown"
    return form


def scaled(embeddings: Tensor) -> Tensor:
    """Embeddings [..., E] brought to a mean square of 1, which is about what InsightFace's have."""
    return nn.functional.normalize(embeddings, dim=-1) * embeddings.shape[-1] ** 0.5


def check_identity_net(folder: Path, unet: Mapping[str, Any]) -> None:
    """Look at the settings of an IdentityNet before it is loaded.

    Args:
        folder: In diffusers' layout.
        unet: The settings of the base's UNet.

    Raises:
        WeightsError: It is not a ControlNet, or one of a different base.
    """
    config = read_file(folder / NET_FILES[0], "download the folder again", WeightsError)
    kind = config.get("_class_name")
    if kind != NET:
        raise WeightsError(f"{folder} has a {kind or 'model of unknown kind'}, not a {NET}; {REMEDY}")
    for name in SAME:
        if config.get(name) != unet.get(name):
            raise WeightsError(
                f"the IdentityNet {folder} has {name} {config.get(name)}, but the base {unet.get(name)}; give the base "
                "that it was made for"
            )

"""Converts adapter files between the official `.bin` and flat safetensors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from photomaker.encoders.adapter_file import SECTIONS, AdapterFile, infer_sizes, read_adapter
from photomaker.errors import OutputError, SettingsError, WeightsError
from photomaker.weights import read_metadata, sha256

FORMS = (".bin", ".safetensors")


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        adapter: The adapter.
        source_sha256: Hash of the file read.
        target_sha256: Hash of the file written.
        lost: Notes that the new form has no place for.
    """

    adapter: AdapterFile
    source_sha256: str
    target_sha256: str
    lost: tuple[str, ...]


def convert_adapter(
    source: str | os.PathLike[str], target: str | os.PathLike[str], overwrite: bool = False
) -> Converted:
    """Write an adapter in the form that the target's ending names, read it again, and compare every number.

    Tensors are mapped from the source and written one after the other, so that memory stays small.

    Args:
        source: A `.bin` or `.safetensors` file.
        target: File to write, ending in `.bin` or `.safetensors`.
        overwrite: Whether a file that is there is replaced.

    Raises:
        SettingsError: The target has another ending, is the source, or is there already.
        WeightsError: The source is not an adapter, or has sizes that a `.bin` cannot tell.
        OutputError: The target cannot be written.
    """
    source, target = Path(source), Path(target)
    if target.suffix not in FORMS:
        raise SettingsError(
            f"{target} ends in neither {' nor '.join(FORMS)}; the extension chooses the format"
        )
    if target.exists() and (not overwrite or target.samefile(source)):
        raise SettingsError(f"{target} exists already; choose another name, or allow overwriting")
    adapter = read_adapter(source)
    metadata = read_metadata(source) if source.suffix == FORMS[1] else {}
    if target.suffix == FORMS[0]:
        _check_tellable(adapter)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            part = Path(folder) / target.name
            _write(adapter, metadata, part)
            _compare(adapter, read_adapter(part))
            part.replace(target)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}; choose another place"
        ) from error
    lost = tuple(sorted(metadata)) if target.suffix == FORMS[0] else ()
    return Converted(
        adapter, sha256(source), sha256(target), tuple(name for name in lost if name != "format")
    )


def _sections(adapter: AdapterFile) -> dict[str, Mapping[str, Tensor]]:
    return dict(zip(SECTIONS, (adapter.id_encoder, adapter.lora), strict=True))


def _write(adapter: AdapterFile, metadata: Mapping[str, str], path: Path) -> None:
    from safetensors.torch import save_file

    sections = _sections(adapter)
    if path.suffix == FORMS[0]:
        torch.save({name: dict(tensors) for name, tensors in sections.items()}, path)
        return
    flat = {
        f"{section}.{name}": tensor.contiguous()
        for section, tensors in sections.items()
        for name, tensor in tensors.items()
    }
    save_file(_unshared(flat), path, metadata={"format": "pt", **metadata})


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, those that share memory with an earlier one copied: safetensors keeps none shared."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return result


def _check_tellable(adapter: AdapterFile) -> None:
    """A `.bin` says nothing of sizes that are not to be seen in the shapes."""
    seen = infer_sizes(adapter.id_encoder, adapter.source)
    hidden = [name for name, value in seen.items() if adapter.config.get(name, value) != value]
    if hidden:
        raise WeightsError(
            f"{adapter.source} has {', '.join(hidden)} which a .bin file cannot hold; keep it as .safetensors"
        )


def _compare(first: AdapterFile, second: AdapterFile) -> None:
    for one, other in zip(_sections(first).values(), _sections(second).values(), strict=True):
        same = one.keys() == other.keys() and all(
            tensor.dtype == other[name].dtype and torch.equal(tensor, other[name])
            for name, tensor in one.items()
        )
        if not same:
            raise WeightsError(f"{first.source} is not the same after writing; check the disk")

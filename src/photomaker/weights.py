"""Model files: where the bundled ones are, whether they are what was released, and how to read them safely.

The bundled files are listed in `assets/small/manifest.json` with their SHA-256. A file that is missing or
altered is refused before any model is built from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from photomaker.errors import WeightsError
from photomaker.outside import read_object

if TYPE_CHECKING:
    import torch

ASSETS = Path(__file__).parent / "assets"
SMALL = ASSETS / "small"
MANIFEST = "manifest.json"
COMPARED = "methods"
"""Folder of the weights of the methods that PhotoMaker is compared with."""
MODEL_LIMIT = 28_000_000
"""Bytes that the bundled model may take: everything but the methods that it is compared with."""
LIMIT = 55_000_000
"""Bytes that all bundled files together may take, so that the whole package stays under 60 MB."""

_CHUNK = 1 << 20
_WHOLE = 64 << 20
_REMEDY = "install photomaker again, or in a checkout run `git checkout -- src/photomaker/assets`"


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, read a megabyte at a time, as 64 hexadecimal digits.

    Raises:
        WeightsError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the model file {path}: {error.strerror}; check the path") from error


def manifest(root: Path | None = None) -> dict[str, dict[str, Any]]:
    """What the bundled model consists of: relative path -> {"sha256": ..., "bytes": ...}.

    Args:
        root: Folder that holds `manifest.json`; None is the bundled one.

    Raises:
        WeightsError: There is no manifest, or it is damaged.
    """
    path = (root or SMALL) / MANIFEST
    if not path.is_file():
        raise WeightsError(f"the bundled model is missing ({path} does not exist); {_REMEDY}")
    try:
        files = read_object(path.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged; {_REMEDY}") from error
    if not isinstance(files, dict):
        raise WeightsError(f"{path} is damaged; {_REMEDY}")
    return files


def bundled(part: str) -> Path:
    """The path of a bundled file or folder, after its SHA-256 was compared with the manifest.

    A part that was verified once is not read again by the same process.

    Args:
        part: Path inside the bundled model, for example `base` or `adapter/photomaker.safetensors`.

    Raises:
        WeightsError: The part is not in the manifest, is missing, or is altered.
    """
    return _verified(SMALL, part.rstrip("/"))


def is_bundled(part: str) -> bool:
    """Whether the bundled model has a file or folder of this name; see `bundled`.

    Raises:
        WeightsError: There is no manifest, or it is damaged.
    """
    part = part.rstrip("/")
    return any(name == part or name.startswith(part + "/") for name in manifest())


@lru_cache(maxsize=64)
def _verified(root: Path, part: str) -> Path:
    files = manifest(root)
    members = [name for name in files if name == part or name.startswith(part + "/")]
    if not members:
        known = ", ".join(sorted({PurePosixPath(name).parts[0] for name in files}))
        raise WeightsError(f"the bundled model has no part {part!r} (it has {known}); {_REMEDY}")
    for name in members:
        _verify(root / name, files[name]["sha256"])
    return root / part


def _verify(path: Path, expected: str) -> None:
    if not path.is_file():
        raise WeightsError(f"the bundled model file {path} is missing; {_REMEDY}")
    got = sha256(path)
    if got != expected:
        raise WeightsError(
            f"the bundled model file {path} is altered "
            f"(sha256 {got[:12]}... instead of {expected[:12]}...); {_REMEDY}"
        )


def bundled_hash(*parts: str) -> str:
    """One short name for parts of the bundled model: 16 hexadecimal digits over what the manifest says of them.

    Args:
        parts: Folders such as `base`, or files such as `adapter/photomaker.safetensors`.

    Raises:
        WeightsError: There is no manifest, or it is damaged.
    """
    own = {
        name: facts["sha256"]
        for name, facts in manifest().items()
        if any(name == part or name.startswith(f"{part}/") for part in parts)
    }
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]


def model_hash(*places: str | os.PathLike[str]) -> str:
    """One short name for the weights that made a picture: 16 hexadecimal digits over files and folders.

    Of a file larger than 64 MB only the size and the first and last megabyte count, so that naming a 7 GB
    model takes but a moment; safetensors files begin with a header that lists every tensor.

    Args:
        places: Model files and folders; the order counts.

    Raises:
        WeightsError: A place does not exist or cannot be read.
    """
    digest = hashlib.sha256()
    for place in map(Path, places):
        if not place.exists():
            raise WeightsError(f"there is no model file or folder {place}; check the path")
        members = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        for path in members:
            digest.update(f"{path.relative_to(place).as_posix()}\0{_fingerprint(path)}\n".encode())
    return digest.hexdigest()[:16]


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    if size <= _WHOLE:
        return sha256(path)
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_CHUNK))
        file.seek(-_CHUNK, os.SEEK_END)
        digest.update(file.read())
    return f"{size}:{digest.hexdigest()}"


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text metadata of a safetensors file; empty if it has none.

    Raises:
        WeightsError: The file is missing or is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    _must_exist(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a safetensors file or is damaged; download it again") from error


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The sizes of a model, from the JSON that its safetensors file carries under `config`.

    Raises:
        WeightsError: The file is missing, damaged, or carries no such JSON.
    """
    try:
        return read_object(read_metadata(path)["config"])
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} says nothing about the sizes of its model; download it again") from error


def read_tensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """All tensors of a model file under flat names, read without running any code that the file may hold.

    Args:
        path: A safetensors file, or the official `.bin`: a pickle of nested dictionaries of plain tensors,
            whose names are joined by dots (`id_encoder.` and `lora_weights.` for PhotoMaker).

    Raises:
        WeightsError: The file is missing, damaged, or holds something other than tensors.
    """
    path = Path(path)
    _must_exist(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _flat(read_pickle(path), path)


def read_sections(path: str | os.PathLike[str]) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of `read_tensors`, sorted by the first part of their names.

    Raises:
        WeightsError: As `read_tensors`.
    """
    sections: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in read_tensors(path).items():
        section, _, rest = name.partition(".")
        sections.setdefault(section, {})[rest] = tensor
    return sections


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"there is no model file {path}; check the path")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a safetensors file or is damaged; download it again") from error


def read_pickle(path: Path) -> Mapping[Any, Any]:
    """The dictionary in a file of torch, read without running any code that the file may hold.

    Raises:
        WeightsError: The file is damaged, or holds something other than plain data.
    """
    import torch
    from safetensors import SafetensorError

    try:
        # today's files are zip archives, of which only what is used is read; older ones cannot be mapped
        mapped = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        pickle.UnpicklingError,
        SafetensorError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        MemoryError,
        RecursionError,
        zipfile.BadZipFile,
        struct.error,
        AssertionError,
    ) as error:
        raise WeightsError(f"{path} is damaged or holds more than tensors; download it again") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not named tensors; download it again")
    return content


def _flat(content: Mapping[str, Any], path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    import torch

    flat: dict[str, torch.Tensor] = {}
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            flat[f"{prefix}{name}"] = value
        elif isinstance(value, Mapping):
            flat |= _flat(value, path, f"{prefix}{name}.")
        else:
            raise WeightsError(
                f"{path} holds a {type(value).__name__} under {prefix}{name}; download it again"
            )
    return flat

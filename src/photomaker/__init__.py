# ruff: noqa: F401 - the imports below are for type checkers only
"""A few photos of a person in, new pictures of that person out, by stacked ID embedding (PhotoMaker).

Public names are imported when they are first used, so that `import photomaker` is fast.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from photomaker.encoders import (
        FacePerceiverResampler,
        FuseModule,
        PhotoMakerIDEncoder,
        PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken,
        mix,
    )
    from photomaker.errors import (
        Cancelled,
        IdentityError,
        OutputError,
        PhotoError,
        PhotoMakerError,
        PromptError,
        SettingsError,
        WeightsError,
    )
    from photomaker.faces.insightface_faces import FaceAnalysis2, analyze_faces
    from photomaker.images import image_grid
    from photomaker.methods.photomaker import PhotoMaker
    from photomaker.pipelines import (
        PhotoMakerStableDiffusionXLAdapterPipeline,
        PhotoMakerStableDiffusionXLControlNetImg2ImgPipeline,
        PhotoMakerStableDiffusionXLControlNetPipeline,
        PhotoMakerStableDiffusionXLImg2ImgPipeline,
        PhotoMakerStableDiffusionXLInpaintPipeline,
        PhotoMakerStableDiffusionXLPipeline,
    )
    from photomaker.pipelines.drop_in.alone import PhotoMakerAdapter, PromptEmbeddings
    from photomaker.prompts import TextEncoders
    from photomaker.studio.engine import Engine
    from photomaker.studio.events import Cancel
    from photomaker.studio.orders.order import Order, Someone
    from photomaker.studio.photos.sitting import read_photos
    from photomaker.types import (
        Extras,
        Face,
        Identity,
        Lora,
        Reference,
        Request,
        Sample,
        Sampling,
        Start,
        Structure,
        StylePicture,
    )

_PLACES = {
    "photomaker.encoders": (
        "FacePerceiverResampler",
        "FuseModule",
        "PhotoMakerIDEncoder",
        "PhotoMakerIDEncoder_CLIPInsightfaceExtendtoken",
        "mix",
    ),
    "photomaker.errors": (
        "Cancelled",
        "IdentityError",
        "OutputError",
        "PhotoError",
        "PhotoMakerError",
        "PromptError",
        "SettingsError",
        "WeightsError",
    ),
    "photomaker.faces.insightface_faces": ("FaceAnalysis2", "analyze_faces"),
    "photomaker.images": ("image_grid",),
    "photomaker.methods.photomaker": ("PhotoMaker",),
    "photomaker.pipelines": (
        "PhotoMakerStableDiffusionXLAdapterPipeline",
        "PhotoMakerStableDiffusionXLControlNetImg2ImgPipeline",
        "PhotoMakerStableDiffusionXLControlNetPipeline",
        "PhotoMakerStableDiffusionXLImg2ImgPipeline",
        "PhotoMakerStableDiffusionXLInpaintPipeline",
        "PhotoMakerStableDiffusionXLPipeline",
    ),
    "photomaker.pipelines.drop_in.alone": ("PhotoMakerAdapter", "PromptEmbeddings"),
    "photomaker.prompts": ("TextEncoders",),
    "photomaker.studio.engine": ("Engine",),
    "photomaker.studio.events": ("Cancel",),
    "photomaker.studio.orders.order": ("Order", "Someone"),
    "photomaker.studio.photos.sitting": ("read_photos",),
    "photomaker.types": (
        "Extras",
        "Face",
        "Identity",
        "Lora",
        "Reference",
        "Request",
        "Sample",
        "Sampling",
        "Start",
        "Structure",
        "StylePicture",
    ),
}
_NEEDS_FACES = ("FaceAnalysis2", "analyze_faces")
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [  # noqa: PLE0604 - the names are in _PLACES; `import *` must not need an extra
    *(name for name in _MODULE_OF if name not in _NEEDS_FACES)
]
__version__ = "0.1.0"


# transformers advises torchvision, which nothing here needs and which breaks both where it does not match torch
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision" not in record.getMessage()
)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'photomaker' has no attribute {name!r}")
    try:
        module = import_module(_MODULE_OF[name])
    except ModuleNotFoundError as error:
        if name not in _NEEDS_FACES:
            raise
        raise ImportError(
            f"{name} needs {error.name}; install it with: pip install 'photomaker[insightface]'"
        ) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted({*globals(), *_MODULE_OF})

"""The official class names, and their siblings: stock diffusers pipelines with the PhotoMaker mixin, one per task."""

from __future__ import annotations

from diffusers import (
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)

from photomaker.pipelines.drop_in import auto
from photomaker.pipelines.drop_in.mixin import PhotoMakerMixin


class PhotoMakerStableDiffusionXLPipeline(PhotoMakerMixin, StableDiffusionXLPipeline):
    """Text to image."""


class PhotoMakerStableDiffusionXLImg2ImgPipeline(PhotoMakerMixin, StableDiffusionXLImg2ImgPipeline):
    """Image to image; merging counts the steps that are really run, so a low strength wants a low merge step."""


class PhotoMakerStableDiffusionXLInpaintPipeline(PhotoMakerMixin, StableDiffusionXLInpaintPipeline):
    """Inpainting."""


class PhotoMakerStableDiffusionXLControlNetPipeline(PhotoMakerMixin, StableDiffusionXLControlNetPipeline):
    """Text to image under one or several ControlNets."""


class PhotoMakerStableDiffusionXLControlNetImg2ImgPipeline(
    PhotoMakerMixin, StableDiffusionXLControlNetImg2ImgPipeline
):
    """Image to image under one or several ControlNets."""


class PhotoMakerStableDiffusionXLAdapterPipeline(PhotoMakerMixin, StableDiffusionXLAdapterPipeline):
    """Text to image under a T2I-Adapter."""


# the first kind is found from one list in the others; with `controlnet=...`, the second by the class's name
auto.CLASSES.update(
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING={
        "photomaker": PhotoMakerStableDiffusionXLPipeline,
        "photomaker-controlnet": PhotoMakerStableDiffusionXLControlNetPipeline,
    },
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING={
        "photomaker": PhotoMakerStableDiffusionXLImg2ImgPipeline,
        "photomaker-controlnet": PhotoMakerStableDiffusionXLControlNetImg2ImgPipeline,
    },
    AUTO_INPAINT_PIPELINES_MAPPING={"photomaker": PhotoMakerStableDiffusionXLInpaintPipeline},
)
auto.announce()

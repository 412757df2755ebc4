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

from photomaker.pipelines.mixin import PhotoMakerMixin


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

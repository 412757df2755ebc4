"""Stock diffusers pipelines with an identity: one mixin, thin classes under the official names."""

from photomaker.pipelines.merging import Conditioning, DelayedMerging
from photomaker.pipelines.mixin import PhotoMakerMixin
from photomaker.pipelines.tasks import (
    PhotoMakerStableDiffusionXLAdapterPipeline,
    PhotoMakerStableDiffusionXLControlNetPipeline,
    PhotoMakerStableDiffusionXLImg2ImgPipeline,
    PhotoMakerStableDiffusionXLInpaintPipeline,
    PhotoMakerStableDiffusionXLPipeline,
)

__all__ = [
    "Conditioning",
    "DelayedMerging",
    "PhotoMakerMixin",
    "PhotoMakerStableDiffusionXLAdapterPipeline",
    "PhotoMakerStableDiffusionXLControlNetPipeline",
    "PhotoMakerStableDiffusionXLImg2ImgPipeline",
    "PhotoMakerStableDiffusionXLInpaintPipeline",
    "PhotoMakerStableDiffusionXLPipeline",
]

"""Unchanged diffusers pipelines with an identity: one mixin, thin classes under the official names."""

# Imported here because diffusers loads a component of a foreign class only if its module has been imported before.
from photomaker.pipelines.autoencoder import SmallAutoencoder
from photomaker.pipelines.drop_in.mixin import PhotoMakerMixin
from photomaker.pipelines.drop_in.tasks import (
    PhotoMakerStableDiffusionXLAdapterPipeline,
    PhotoMakerStableDiffusionXLControlNetImg2ImgPipeline,
    PhotoMakerStableDiffusionXLControlNetPipeline,
    PhotoMakerStableDiffusionXLImg2ImgPipeline,
    PhotoMakerStableDiffusionXLInpaintPipeline,
    PhotoMakerStableDiffusionXLPipeline,
)
from photomaker.pipelines.steps.merging import Conditioning, DelayedMerging

__all__ = [
    "Conditioning",
    "DelayedMerging",
    "PhotoMakerMixin",
    "PhotoMakerStableDiffusionXLAdapterPipeline",
    "PhotoMakerStableDiffusionXLControlNetImg2ImgPipeline",
    "PhotoMakerStableDiffusionXLControlNetPipeline",
    "PhotoMakerStableDiffusionXLImg2ImgPipeline",
    "PhotoMakerStableDiffusionXLInpaintPipeline",
    "PhotoMakerStableDiffusionXLPipeline",
    "SmallAutoencoder",
]

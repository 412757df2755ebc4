"""A small autoencoder with factor 8 that trains fast on a CPU and fits into stock diffusers pipelines.

Convolutions at full resolution with few channels are what is slow on a CPU. Here the picture is folded into channels at
once (pixel-unshuffle by 4) and the residual blocks work at a quarter and at an eighth of the resolution; the decoder
mirrors that. There are no normalisation layers: they cost time and smear colour between regions.

`model_index.json` of a pipeline names a component by its import path, and diffusers takes it from the modules that are
imported already: `import photomaker.pipelines`, and stock `StableDiffusionXLPipeline.from_pretrained(folder)` finds it.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

FACTOR = 8
_FOLD = 4


class _Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))); the second convolution starts small so that a deep stack starts near identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.silu(self.conv1(functional.silu(x))))


def _blocks(width: int, count: int) -> list[nn.Module]:
    return [_Residual(width) for _ in range(count)]


class SmallAutoencoder(ModelMixin, ConfigMixin):
    """Deterministic autoencoder: RGB [batch, 3, 8h, 8w] in -1..1 to latents [batch, latent_channels, h, w] and back.

    The parts next to the latents are convolutions of size 1, so that `rescale_latents` can fold a normalisation of the
    latents into the weights exactly; `scaling_factor` then stays 1, which every diffusers pipeline handles alike (some
    ignore `latents_mean` and `latents_std`).

    Args:
        latent_channels: Channels of the latents.
        encoder_widths: Channels at a quarter and at an eighth of the resolution.
        encoder_blocks: Residual blocks at the two resolutions.
        decoder_widths: The same for the decoder, outer resolution first.
        decoder_blocks: The same for the decoder.
        block_out_channels: Only its length is read, by the pipelines: 2 ** (length - 1) is the factor.
        scaling_factor: Factor from the encoder's output to the latents that a UNet sees.
        force_upcast: Read by the pipelines: whether half precision is too coarse for the decoder.
        in_channels: Channels of a picture.
        out_channels: Channels of a decoded picture.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(  # noqa: PLR0917 - diffusers reads the configuration off this signature
        self,
        latent_channels: int = 16,
        encoder_widths: tuple[int, int] = (64, 128),
        encoder_blocks: tuple[int, int] = (2, 1),
        decoder_widths: tuple[int, int] = (64, 128),
        decoder_blocks: tuple[int, int] = (4, 2),
        block_out_channels: tuple[int, int, int, int] = (48, 64, 64, 128),
        scaling_factor: float = 1.0,
        force_upcast: bool = False,
        in_channels: int = 3,
        out_channels: int = 3,
    ) -> None:
        """Build the layers."""
        super().__init__()
        del block_out_channels, scaling_factor, force_upcast
        outer, inner = encoder_widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_FOLD),
            nn.Conv2d(in_channels * _FOLD**2, outer, 3, padding=1),
            *_blocks(outer, encoder_blocks[0]),
            nn.PixelUnshuffle(2),
            nn.Conv2d(outer * 4, inner, 1),
            *_blocks(inner, encoder_blocks[1]),
            nn.Conv2d(inner, latent_channels, 1),
        )
        outer, inner = decoder_widths
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, inner, 1),
            *_blocks(inner, decoder_blocks[1]),
            nn.Conv2d(inner, outer * 4, 1),
            nn.PixelShuffle(2),
            *_blocks(outer, decoder_blocks[0]),
            nn.SiLU(),
            nn.Conv2d(outer, out_channels * _FOLD**2, 3, padding=1),
            nn.PixelShuffle(_FOLD),
        )

    def encode(
        self, x: Tensor, return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Encode pictures.

        Args:
            x: RGB [batch, 3, 8h, 8w] in -1..1.
            return_dict: Whether to return an `AutoencoderKLOutput` or a tuple.

        Returns:
            A distribution without spread around the latents [batch, latent_channels, h, w].
        """
        mean = self.encoder(x)
        posterior = DiagonalGaussianDistribution(
            torch.cat([mean, torch.zeros_like(mean)], dim=1), deterministic=True
        )
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[Tensor]:
        """Decode latents.

        Args:
            z: Latents [batch, latent_channels, h, w].
            return_dict: Whether to return a `DecoderOutput` or a tuple.
            generator: Taken because pipelines may pass one; nothing is drawn.

        Returns:
            RGB [batch, 3, 8h, 8w], about -1..1, not clamped.
        """
        del generator
        sample = self.decoder(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, sample: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Encode and decode pictures [batch, 3, 8h, 8w] in -1..1."""
        return self.decode(self.encoder(sample), return_dict=return_dict)

    @torch.no_grad()
    def rescale_latents(self, mean: Tensor, std: Tensor) -> None:
        """Fold `(z - mean) / std` into the weights on both sides of the latents; reconstructions stay as they were.

        Args:
            mean: Mean of each latent channel [latent_channels].
            std: Standard deviation of each latent channel [latent_channels], above 0.
        """
        last, first = self.encoder[-1], self.decoder[0]
        assert isinstance(last, nn.Conv2d) and isinstance(first, nn.Conv2d)
        assert last.bias is not None and first.bias is not None
        mean, std = mean.to(last.weight), std.to(last.weight)
        first.bias += first.weight[:, :, 0, 0] @ mean
        first.weight *= std[None, :, None, None]
        last.weight /= std[:, None, None, None]
        last.bias.copy_((last.bias - mean) / std)

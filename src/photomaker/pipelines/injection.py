"""What is put into a UNet for a while and taken out again, also when drawing ends in an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def processors_in(unet: Any, processors: Mapping[str, Any]) -> Iterator[None]:  # noqa: ANN401 - any diffusers UNet
    """Other attention processors as long as the context lasts.

    Args:
        unet: A diffusers UNet.
        processors: Names as in `unet.attn_processors`; layers that are not named keep theirs. Those that have weights
            are moved to the UNet's device.
    """
    before = dict(unet.attn_processors)
    for processor in processors.values():
        if isinstance(processor, nn.Module):
            processor.to(unet.device)
    unet.set_attn_processor({**before, **processors})
    try:
        yield
    finally:
        unet.set_attn_processor(dict(before))


@contextmanager
def image_projection_in(unet: Any, projection: nn.Module) -> Iterator[None]:  # noqa: ANN401 - any diffusers UNet
    """An IP-Adapter's image projection in a UNet as long as the context lasts."""
    before, kind = unet.encoder_hid_proj, unet.config.encoder_hid_dim_type
    unet.encoder_hid_proj = projection.to(unet.device)
    unet.config.encoder_hid_dim_type = "ip_image_proj"
    try:
        yield
    finally:
        unet.encoder_hid_proj = before
        unet.config.encoder_hid_dim_type = kind


@contextmanager
def weights_in(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights in a module as long as the context lasts; its own come back bit for bit.

    Args:
        module: Any module.
        tensors: Names of its parameters to tensors of the same shapes.
    """
    parameters = dict(module.named_parameters())
    before = {name: parameters[name].data for name in tensors}
    try:
        with torch.no_grad():
            for name, tensor in tensors.items():
                parameters[name].data = tensor.to(before[name])
        yield
    finally:
        for name, own in before.items():
            parameters[name].data = own

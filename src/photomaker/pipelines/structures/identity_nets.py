"""IdentityNet: a ControlNet beside a UNet that reads a person's tokens in place of the text.

It runs inside the UNet's call, so that any stock pipeline draws with it and no call of the pipeline changes.

Source: InstantID, arXiv 2401.07519, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photomaker.errors import WeightsError
from photomaker.pipelines.attention.wrapping import forward_in
from photomaker.pipelines.drawing.opening import quietly


def open_identity_net(folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - a diffusers ControlNet
    """Load an IdentityNet.

    Raises:
        WeightsError: It cannot be loaded.
    """
    from diffusers import ControlNetModel

    try:
        with quietly():
            net = ControlNetModel.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(
            f"the IdentityNet {folder} cannot be loaded ({reason}); download it again"
        ) from error
    return net.requires_grad_(False).eval()


class Structured:
    """Adds what an IdentityNet says to every call of a UNet.

    Args:
        net: The IdentityNet.
        tokens: What it reads [rows, tokens, D]; with guidance the negative rows come first.
        pictures: What it sees [rows, 3, height, width] in 0..1.
        scale: How much of it.

    Attributes:
        on: Whether it takes part in the next call.
    """

    def __init__(self, net: nn.Module, tokens: Tensor, pictures: Tensor, scale: float) -> None:
        """Take part from the start."""
        self.net, self.tokens, self.pictures, self.scale, self.on = net, tokens, pictures, scale, True

    @contextmanager
    def attached(self, unet: nn.Module) -> Iterator[Structured]:
        """Beside a UNet during the context, also when it ends in an error."""
        # inside all hooks, which choose rows and phase
        with forward_in(unet, self._around):
            yield self

    def _around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def forward(sample: Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            more = self.residuals(sample, timestep, kwargs["added_cond_kwargs"]) if self.on else {}
            return inner(sample, timestep, *args, **kwargs, **more)

        return forward

    def residuals(self, sample: Tensor, timestep: Any, added: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ANN401
        """The UNet's further arguments; a step without guidance has the last rows alone."""
        down, middle = self.net(
            sample,
            timestep,
            encoder_hidden_states=self.tokens[-len(sample) :],
            controlnet_cond=self.pictures[-len(sample) :],
            conditioning_scale=self.scale,
            added_cond_kwargs={name: added[name] for name in ("text_embeds", "time_ids")},
            return_dict=False,
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

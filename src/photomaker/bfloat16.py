"""Whether a device computes in bfloat16, or only imitates it."""

from __future__ import annotations

import torch


def quick(device: str | torch.device) -> bool:
    """Whether bfloat16 pays on a device.

    Processors without instructions for it imitate it: a convolution then takes about thirty times as long as in
    float32 (measured on an AVX2 machine: 693 against 21 ms).

    Args:
        device: A torch device, or its name.
    """
    if torch.device(device).type != "cpu":
        return True
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is None or bool(supported())

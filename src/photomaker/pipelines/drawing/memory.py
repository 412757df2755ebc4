"""A memory plan: where the parts of a pipeline stay while it draws, by device and free memory.

The sums are estimates: weights are counted, and the rest is taken from what SDXL at 1024 x 1024 is known to need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from photomaker.errors import SettingsError
from photomaker.types import MEMORY_PLANS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

GIB = 2**30
WORKING = 4.5
"""GiB that SDXL needs beside its weights for two rows of 1024 x 1024 and the autoencoder in one piece."""
WORKING_TILED = 2.5
"""The same with the autoencoder working in tiles."""


@dataclass(frozen=True)
class MemoryPlan:
    """Where the parts of a pipeline stay.

    Attributes:
        name: `max-speed`, `balanced` or `lowest`.
        device: A torch device.
        offload: `none` keeps every part on the device, `model` only the one at work, `sequential` only the layer at
            work.
        tiled: Whether the autoencoder works in tiles and row by row.
        sliced: Whether attention works head by head, where the device has no memory-saving attention.
        reason: Why, in a few words.
    """

    name: str
    device: str
    offload: str
    tiled: bool
    sliced: bool
    reason: str

    def line(self) -> str:
        """The plan in one line."""
        parts = {
            "none": f"all parts on {self.device}",
            "model": f"one part at a time on {self.device}",
            "sequential": f"one layer at a time on {self.device}",
        }
        told = [parts[self.offload]]
        told += ["autoencoder in tiles"] * self.tiled + ["attention in slices"] * self.sliced
        return f"memory plan {self.name}: {', '.join(told)} ({self.reason})"


def weight_bytes(pipeline: DiffusionPipeline) -> dict[str, int]:
    """Bytes of weights of each part."""
    return {
        name: sum(tensor.numel() * tensor.element_size() for tensor in part.state_dict().values())
        for name, part in pipeline.components.items()
        if isinstance(part, nn.Module)
    }


def free_bytes(device: str) -> int | None:
    """Bytes free on a device; None if that cannot be told."""
    kind = torch.device(device).type
    if kind == "cuda":
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    if kind == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return None


def plan_memory(
    pipeline: DiffusionPipeline, device: str = "cpu", memory: str = "auto", free: int | None = None
) -> MemoryPlan:
    """Choose a plan.

    Args:
        pipeline: A loaded pipeline.
        device: Where it should draw.
        memory: `max-speed`, `balanced`, `lowest`, or `auto` for the fastest of them that fits.
        free: Bytes free on the device; None asks the device.

    Raises:
        SettingsError: `memory` is none of these.
    """
    if memory not in MEMORY_PLANS:
        raise SettingsError(f"memory is {memory!r}; choose {', '.join(MEMORY_PLANS)}")
    kind = torch.device(device).type
    reason = "as asked"
    if memory == "auto":
        memory, reason = _fitting(pipeline, kind, free_bytes(device) if free is None else free)
    # Offloading moves parts between two memories; a CPU has one, and Apple's devices share theirs with it.
    offload = (
        {"max-speed": "none", "balanced": "model", "lowest": "sequential"}[memory]
        if kind == "cuda"
        else "none"
    )
    spare = memory != "max-speed"
    return MemoryPlan(memory, device, offload, spare, kind == "mps" and memory == "lowest", reason)


def _fitting(pipeline: DiffusionPipeline, kind: str, free: int | None) -> tuple[str, str]:
    sizes = weight_bytes(pipeline)
    total, largest = sum(sizes.values()) / GIB, max(sizes.values(), default=0) / GIB
    share = _share_of_full_size(pipeline)
    if free is None:
        return ("max-speed" if share < 1 else "balanced"), f"{total:.1f} GiB of weights on the {kind}"
    room = free / GIB
    told = f"{total:.1f} GiB of weights, {room:.1f} GiB free"
    if total + WORKING * share <= room:
        return "max-speed", told
    if kind != "cuda" or largest + WORKING_TILED * share <= room:
        return "balanced", told
    return "lowest", told


def _share_of_full_size(pipeline: Any) -> float:  # noqa: ANN401 - any SDXL pipeline
    """Latent cells of the pipeline's own size, over those of 1024 x 1024."""
    return (pipeline.default_sample_size / 128) ** 2


def apply_memory(pipeline: Any, plan: MemoryPlan) -> None:  # noqa: ANN401 - any SDXL pipeline
    """Put a pipeline where a plan says.

    SDXL's autoencoder overflows in fp16, which gives black pictures; diffusers lets it work in fp32 where its
    configuration says `force_upcast`, as SDXL's does, and nothing here changes that.

    Args:
        pipeline: A loaded pipeline.
        plan: From `plan_memory`.
    """
    vae = pipeline.vae
    for switch, wanted in (("tiling", plan.tiled), ("slicing", plan.tiled)):
        method = getattr(vae, f"{'enable' if wanted else 'disable'}_{switch}", None)
        if method is not None:
            method()
    if plan.sliced:
        pipeline.enable_attention_slicing()
    if plan.offload == "model":
        pipeline.enable_model_cpu_offload(device=plan.device)
    elif plan.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=plan.device)
    else:
        pipeline.to(plan.device)

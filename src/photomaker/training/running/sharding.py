"""Every weight cut up between processes by PyTorch's `fully_shard` (FSDP 2), as accelerate is configured.

A process keeps its part of each weight, of its gradient, of the optimiser's state and of the average. A block's weights
are put together for as long as the block computes. Checkpoints hold whole tensors, so that a training may continue with
any number of processes, sharded or not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from photomaker.errors import SettingsError

BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D", "CLIPEncoderLayer")
"""Classes whose weights are put together at once, where accelerate's configuration names none."""

_WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def asked(kind: DistributedType) -> FullyShardedDataParallelPlugin | None:
    """What accelerate's configuration asks for: None if every process keeps the whole model.

    Args:
        kind: As accelerate found it; on CPUs it does not name FSDP even where the configuration asks for it.

    Raises:
        SettingsError: It asks for something that the training has not.
    """
    if kind not in (*_WHOLE, DistributedType.FSDP):
        raise SettingsError(
            f"accelerate is configured for {kind.value}, which this training does not support; choose no, "
            "several GPUs, "
            "or FSDP of version 2"
        )
    wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if kind == DistributedType.NO or not (wanted or kind == DistributedType.FSDP):
        return None
    plugin = FullyShardedDataParallelPlugin()
    faults = {
        "fsdp_version: 2": plugin.fsdp_version != 2,  # noqa: PLR2004 - as accelerate writes it
        "fsdp_offload_params: false": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        "fsdp_cpu_ram_efficient_loading: false": plugin.cpu_ram_efficient_loading,
        "fsdp_activation_checkpointing: false (the recipe has gradient_checkpointing)": (
            plugin.activation_checkpointing
        ),
    }
    for remedy, fault in faults.items():
        if fault:
            raise SettingsError(
                f"accelerate is configured for FSDP settings that this training does not support; set {remedy}"
            )
    return plugin


def shard(
    called: Iterable[nn.Module], plugin: FullyShardedDataParallelPlugin, device: torch.device
) -> list[FSDPModule]:
    """Cut up modules in place, and move them to `device`.

    Args:
        called: Modules whose weights are used by their call alone.
        plugin: Which classes of their parts are put together on their own, and whether after the forward pass their
            weights go again.
        device: Of this process.

    Returns:
        Everything that was cut up on its own.

    Raises:
        SettingsError: The modules have no part of a class that is named.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    names = plugin.transformer_cls_names_to_wrap or BLOCKS
    modules = list(called)
    there = {type(part).__name__ for module in modules for part in module.modules()}
    if plugin.transformer_cls_names_to_wrap and (missing := set(names) - there):
        raise SettingsError(
            f"the model has no block of the class {', '.join(sorted(missing))}; name some of {', '.join(BLOCKS)} in "
            "fsdp_transformer_layer_cls_to_wrap"
        )
    done: list[FSDPModule] = []
    for module in modules:
        inner = [part for part in module.modules() if type(part).__name__ in names and part is not module]
        for part in (*inner, module):
            if next(part.parameters(), None) is not None:
                done.append(
                    fully_shard(part, mesh=mesh, reshard_after_forward=bool(plugin.reshard_after_forward))
                )
    return done


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, sharing its memory; all of one that is not cut up."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, one that is cut up on the CPU. Every process must ask."""
    with torch.no_grad():
        return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor.detach()


def cut_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor cut up as another one is, or as it is where that is not cut up."""
    if not isinstance(model, DTensor) or isinstance(tensor, DTensor):
        return tensor
    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements, src_data_rank=None)


def whole_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state with whole tensors. Every process must ask."""
    stated = optimiser.state_dict()
    states = {
        number: {name: whole(value) for name, value in state.items()}
        for number, state in stated["state"].items()
    }
    return {**stated, "state": states}


def load_state(optimiser: torch.optim.Optimizer, stated: dict[str, Any]) -> None:
    """Put back what `whole_state` gave, however many processes there were then."""
    parameters = [one for group in optimiser.param_groups for one in group["params"]]
    states = {
        number: {
            name: cut_like(value, parameters[number]) if value.shape == parameters[number].shape else value
            for name, value in state.items()
        }
        for number, state in stated["state"].items()
    }
    optimiser.load_state_dict({**stated, "state": states})


@contextmanager
def put_together(modules: Iterable[nn.Module], keep: bool) -> Iterator[None]:
    """Let modules hold whole weights on the CPU, to be written down. Every process must ask.

    Args:
        modules: Sharded or not; the latter stay as they are.
        keep: Whether this process gets them; others only take part.
    """
    cut: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for module in modules:
            for part in module.modules():
                for name, parameter in part._parameters.items():
                    if isinstance(parameter, DTensor):
                        full = whole(parameter)
                        if keep:
                            cut.append((part, name, parameter))
                            part._parameters[name] = nn.Parameter(full, parameter.requires_grad)
        yield
    finally:
        for part, name, parameter in cut:
            part._parameters[name] = parameter

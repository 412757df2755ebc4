"""A function around a module's own, for as long as a context lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def forward_in(
    module: nn.Module, around: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Have a function around a module's `forward`, also when the context ends in an error.

    It is inside all hooks of the module. Offloading may have put a function of its own there, which comes back.

    Args:
        module: The module.
        around: Makes the function of the one that is there.
    """
    before = vars(module).get("forward")
    module.forward = around(module.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before  # type: ignore[method-assign]

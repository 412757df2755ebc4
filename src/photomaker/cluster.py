"""Ray, where it is installed: started on this machine, or joined where it runs."""

from __future__ import annotations

import os
import socket
from typing import Any

from photomaker.errors import SettingsError

PATIENCE = 5.0
"""Seconds that a cluster has to answer; Ray itself would try for ever."""


def ray_module(asked_by: str) -> Any:  # noqa: ANN401 - the module
    """The library.

    Args:
        asked_by: The option that asks for it.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            f"{asked_by} is ray, which is not installed; install it with: pip install 'photomaker[scale]'"
        ) from error
    return ray


def join(ray: Any, address: str | None, cores: int, option: str) -> None:  # noqa: ANN401 - the module
    """Start Ray on this machine, or join a cluster.

    Args:
        ray: From `ray_module`.
        address: `auto`, or host and port of a running cluster; None starts Ray here.
        cores: What is started here may use so many.
        option: Where the address was given.

    Raises:
        SettingsError: There is no such cluster.
    """
    # Ray puts its workers behind every other process; these do the work
    os.environ.setdefault("RAY_worker_niceness", "0")
    local = address is None
    try:
        if address is not None:
            _answers(address)
        ray.init(
            address=address,
            num_cpus=cores if local else None,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"there is no Ray cluster at {address!r} ({str(error).splitlines()[0]}); check {option}"
        ) from error


def _answers(address: str) -> None:
    """Knock at host:port; other kinds of address are Ray's to judge.

    Raises:
        OSError: Nobody is there.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), PATIENCE).close()

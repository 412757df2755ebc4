"""Options of commands that can draw in replicas on a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from photomaker.errors import SettingsError

if TYPE_CHECKING:
    from photomaker.studio.desk.replicas import Replicas

LOCAL, RAY = "local", "ray"


@dataclass(frozen=True)
class Elsewhere:
    """The replicas asked for.

    Attributes:
        count: How many; None is one for each device.
        cluster: Address of a running cluster; None starts Ray on this machine.
    """

    count: int | None = None
    cluster: str | None = None

    @classmethod
    def of(cls, executor: str, count: int | None, cluster: str | None) -> Elsewhere | None:
        """The replicas that the options ask for; None is this process.

        Raises:
            SettingsError: Ray's options are given without `--executor ray`.
        """
        if executor == RAY:
            return cls(count, cluster)
        for option, value in (("--replicas", count), ("--cluster", cluster)):
            if value is not None:
                raise SettingsError(f"{option} {value} needs --executor ray; give that too, or leave it out")
        return None

    def replicas(self, options: Mapping[str, Any]) -> Replicas:
        """Start them; see `Replicas`.

        Args:
            options: The arguments of `Engine.open` in each.
        """
        from photomaker.studio.desk.replicas import Replicas

        opened = {name: value for name, value in options.items() if name != "styles"}
        return Replicas(self.count, opened, self.cluster)

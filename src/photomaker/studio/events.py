"""What happens while pictures are made, as values, and the way to stop it.

A bar, a stream of events and a page are three views of these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from photomaker.errors import Cancelled

if TYPE_CHECKING:
    from PIL.Image import Image

    from photomaker.pipelines.watching import Step
    from photomaker.types import Sample


class Cancel:
    """Stops a call from another thread, or from one of its callbacks; used for one call or for several.

    Examples:
        >>> cancel = Cancel()
        >>> cancel.cancelled
        False
    """

    def __init__(self) -> None:
        """Go on for now."""
        self._set = threading.Event()

    def cancel(self) -> None:
        """Stop, within one denoising step."""
        self._set.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._set.is_set()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            Cancelled: `cancel` was called.
        """
        if self.cancelled:
            raise Cancelled("stopped as asked; pictures that were finished before stay")


@dataclass(frozen=True)
class Queued:
    """Others are drawn first.

    Attributes:
        place: How many, from 1.
    """

    place: int


@dataclass(frozen=True)
class Note:
    """Something the user should know.

    Attributes:
        text: One sentence.
    """

    text: str


@dataclass(frozen=True)
class Tuned:
    """A step of a method that is tuned for each person.

    Attributes:
        step: From 1.
        steps: In all.
    """

    step: int
    steps: int


@dataclass(frozen=True, eq=False)
class Denoised:
    """A denoising step of a batch.

    Attributes:
        step: From 1.
        steps: In all.
        done: Pictures that are finished.
        total: Pictures that were asked for.
        what: The step itself; or small pictures of it, where it was done in another process.
    """

    step: int
    steps: int
    done: int
    total: int
    what: Step | tuple[Image, ...]

    def preview(self) -> list[Image]:
        """Small pictures of what is being drawn, one a row of the batch; cheap, and to be asked for at once."""
        from photomaker.pipelines.previews import preview

        return list(self.what) if isinstance(self.what, tuple) else preview(self.what)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture is finished.

    Attributes:
        sample: The picture; where the best of several are kept, it may still fall out.
        done: Pictures that are finished.
        total: Pictures that were asked for, those that will fall out among them.
    """

    sample: Sample
    done: int
    total: int


Event = Queued | Note | Tuned | Denoised | Drawn
Listener = Callable[[Event], None]
"""Told of events, in the thread that asked; what it raises ends the call."""

"""Events while pictures are made, and a way to cancel.

Progress bars, event streams and the page are made from these events.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from photomaker.errors import Cancelled

if TYPE_CHECKING:
    from PIL.Image import Image

    from photomaker.pipelines.steps.watching import Step
    from photomaker.types import Sample


class Cancel:
    """Cancels one or several calls, from another thread or from a callback.

    Examples:
        >>> cancel = Cancel()
        >>> cancel.cancelled
        False
    """

    def __init__(self) -> None:
        """Start uncancelled."""
        self._set = threading.Event()

    def cancel(self) -> None:
        """Stop, within one denoising step."""
        self._set.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._set.is_set()

    def check(self) -> None:
        """Raise if cancelled.

        Raises:
            Cancelled: `cancel` was called.
        """
        if self.cancelled:
            raise Cancelled("cancelled; finished pictures stay")


@dataclass(frozen=True)
class Queued:
    """Others are ahead in the queue.

    Attributes:
        place: How many are ahead, from 1.
    """

    place: int


@dataclass(frozen=True)
class Note:
    """A note for the user.

    Attributes:
        text: One sentence.
    """

    text: str


@dataclass(frozen=True)
class Tuned:
    """A step of a tuned method.

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
        what: The step itself, or previews of it if it ran in another process.
    """

    step: int
    steps: int
    done: int
    total: int
    what: Step | tuple[Image, ...]

    def preview(self) -> list[Image]:
        """Previews, one for each row of the batch; cheap, and only available during the event."""
        from photomaker.pipelines.steps.previews import preview

        return list(self.what) if isinstance(self.what, tuple) else preview(self.what)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture is finished.

    Attributes:
        sample: The picture; with `best_of`, it may still be discarded.
        done: Pictures that are finished.
        total: Pictures to draw, including those that `best_of` discards.
    """

    sample: Sample
    done: int
    total: int


Event = Queued | Note | Tuned | Denoised | Drawn
Listener = Callable[[Event], None]
"""Called with events, in the calling thread; an exception ends the call."""

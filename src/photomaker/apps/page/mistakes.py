"""A visitor's mistake, as one sentence in their language."""

from __future__ import annotations

from photomaker.apps.page.texts import say
from photomaker.errors import NotThere, PhotoMakerError, QueueFull


class Mistake(PhotoMakerError):
    """A mistake that the page itself notices.

    Attributes:
        key: Key of its text.
        values: Values for the text's braces.
    """

    def __init__(self, key: str, **values: object) -> None:
        """Name the text."""
        super().__init__(say("en", key, **values))
        self.key, self.values = key, values


def sentence(language: str, error: PhotoMakerError) -> str:
    """A mistake in one sentence; errors from lower rooms stay in English."""
    if isinstance(error, Mistake):
        return say(language, error.key, **error.values)
    if isinstance(error, QueueFull):
        return say(language, "queue_full", seconds=error.retry_after)
    if isinstance(error, NotThere):
        return say(language, "gone")
    reason = " ".join(str(error).split()).rstrip(".")
    return say(language, "mistake", reason=reason[:1].upper() + reason[1:])

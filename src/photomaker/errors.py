"""Everything a caller can cause, as one small family of exceptions.

A message is one sentence: what was wrong, the value that was got, and what to do about it. The command line prints
it and exits with status 2; no traceback is shown for a mistake of the user's.
"""


class PhotoMakerError(Exception):
    """Base of every error that a caller can cause and mend."""


class PhotoError(PhotoMakerError):
    """A reference photo is missing, unreadable, too large, or shows no usable face."""


class PromptError(PhotoMakerError):
    """A prompt has no class word, more than one trigger, or a trigger in an impossible place."""


class WeightsError(PhotoMakerError):
    """A model file is missing, altered, truncated, or of a different architecture."""


class IdentityError(PhotoMakerError):
    """A saved identity cannot be read, or does not fit the model that it is used with."""


class SettingsError(PhotoMakerError):
    """A setting has a value outside its range, or settings contradict each other."""


class OutputError(PhotoMakerError):
    """A result cannot be written where it was asked for."""


class ProvenanceError(PhotoMakerError):
    """A picture cannot be signed, or what signs it cannot be read."""


class Cancelled(PhotoMakerError):
    """The caller asked to stop; what was finished before stays."""


class NotThere(PhotoMakerError):
    """What was asked for by its id is not there, or is somebody else's, which is told the same way."""


class QueueFull(PhotoMakerError):
    """There are too many jobs waiting already.

    Attributes:
        retry_after: Seconds after which to ask again, an estimate.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        """Say so, and when to come again."""
        super().__init__(message)
        self.retry_after = retry_after

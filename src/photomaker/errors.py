"""Errors that a caller can cause, as one small family of exceptions.

A message is one sentence: what is wrong, the value, and the remedy. The command line prints it and exits with status 2,
without a traceback.
"""


class PhotoMakerError(Exception):
    """Base of all errors that a caller can cause and fix."""


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
    """A result cannot be written to the given place."""


class ProvenanceError(PhotoMakerError):
    """A picture cannot be signed, or a certificate cannot be read."""


class Cancelled(PhotoMakerError):
    """The caller cancelled; finished pictures stay."""


class NotThere(PhotoMakerError):
    """The id does not exist, or belongs to another owner, which is reported the same way."""


class QueueFull(PhotoMakerError):
    """Too many jobs are waiting.

    Attributes:
        retry_after: Estimated seconds after which to try again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        """Say so, and when to come again."""
        super().__init__(message)
        self.retry_after = retry_after

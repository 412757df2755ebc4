"""The options `--no-provenance`, `--certificate` and `--key`, checked before any model runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from photomaker.apps import terminal
from photomaker.errors import ProvenanceError, SettingsError
from photomaker.studio.provenance.manifest import Seal, Sealing, installed


@dataclass(frozen=True)
class Signing:
    """The options.

    Attributes:
        wanted: Whether pictures get a manifest.
        certificate: PEM file of the user's certificate.
        key: PEM file of its key.
        prompt: Whether the manifest holds the prompt.
    """

    wanted: bool = True
    certificate: Path | None = None
    key: Path | None = None
    prompt: bool = False

    def sealing(self) -> Sealing:
        """The seal that signs; prints a note if no certificate was named and the machine's own cannot be used.

        Raises:
            SettingsError: Options contradict each other.
            ProvenanceError: The named certificate cannot sign.
        """
        asked = {"--certificate": self.certificate, "--key": self.key, "--provenance-prompt": self.prompt}
        given = [name for name, value in asked.items() if value]
        if not self.wanted:
            if given:
                raise SettingsError(f"{given[0]} cannot be combined with --no-provenance; leave one out")
            return False
        if given:
            return Seal.open(self.certificate, self.key, self.prompt)
        return self._own()

    @staticmethod
    def _own() -> Sealing:
        if not installed():
            return False
        try:
            return Seal.open()
        except ProvenanceError as error:
            terminal.note(f"pictures will have no manifest: {error}")
            return False

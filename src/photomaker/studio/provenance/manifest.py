"""C2PA manifests: signed records in a picture's file of the model and the use of a person's likeness."""

from __future__ import annotations

import io
import json
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from photomaker.errors import ProvenanceError, SettingsError
from photomaker.images import quiet_pillow
from photomaker.metadata import BY_MODEL, KINDS, encoded
from photomaker.studio.provenance.certificates import (
    Certificate,
    given_certificate,
    own_certificate,
    own_file,
)
from photomaker.studio.provenance.consent import CONSENT, lines_of, noted
from photomaker.studio.provenance.fingerprint import Fingerprint

EXTRA = "photomaker[provenance]"
NOTE = "provenance"
"""Name of the text that says a manifest was added; if only the text exists, the manifest was removed."""
NOTED = "C2PA manifest"
TOOL = "photomaker"
ACTIONS, MODEL, LIKENESS, PIXELS, PROMPT = (
    "c2pa.actions.v2", "photomaker.model", "photomaker.likeness", "photomaker.pixels", "photomaker.prompt",
)  # fmt: skip
"""Labels of a manifest's assertions; all but the first are this package's own."""


@dataclass(frozen=True)
class Facts:
    """A manifest's facts about a picture.

    Attributes:
        about: Model, its hash, and the method; see `Engine.about`.
        consent: The note of consent in the picture's text; see `photomaker.studio.provenance.consent`.
        prompts: Prompt and negative prompt, if they should be included.
        source: IPTC's digital source type.
    """

    about: Mapping[str, str]
    consent: str | None = None
    prompts: Mapping[str, str] | None = None
    source: str = BY_MODEL


@dataclass(frozen=True)
class Seal:
    """Signs pictures.

    Attributes:
        certificate: The certificate.
        prompt: Whether manifests include the prompt.
    """

    certificate: Certificate
    prompt: bool = False

    @classmethod
    def open(
        cls,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        prompt: bool = False,
    ) -> Seal:
        """Open a certificate and test it on a picture.

        Args:
            certificate: PEM file of the user's certificate; None is the one created at first use.
            key: PEM file of its key.
            prompt: Whether manifests include the prompt.

        Raises:
            SettingsError: Only one of certificate and key is given.
            ProvenanceError: The extra is not installed, or they cannot sign.
        """
        if (certificate is None) != (key is None):
            lacking, there = ("--certificate", key) if certificate is None else ("--key", certificate)
            raise SettingsError(f"{there} is given without {lacking}; give certificate and key together")
        require()
        if certificate is None or key is None:
            seal, path = cls(own_certificate(), prompt), own_file()
        else:
            seal, path = cls(given_certificate(certificate, key), prompt), Path(certificate)
        seal._try(path)
        return seal

    def _try(self, path: Path) -> None:
        """Sign a small picture and read it.

        Raises:
            ProvenanceError: It cannot be signed, or C2PA does not accept the certificate.
        """
        import c2pa  # type: ignore[import-untyped]

        from photomaker.studio.provenance.inspection import UNTRUSTED, failures, manifest_store

        try:
            signed = self._signed(encoded(Image.new("RGB", (16, 16))), "png", Facts({}))
            wrong = [code for code in failures(manifest_store(signed, "image/png")) if code != UNTRUSTED]
        except c2pa.C2paError as error:
            wrong = [_reason(error)]
        if wrong:
            raise ProvenanceError(
                f"C2PA does not accept the certificate {path} ({wrong[0]}); give one for signing "
                "documents, followed by the rest of its chain"
            )

    def signed(self, data: bytes, kind: str, facts: Facts, pixels: Image.Image | None = None) -> bytes:
        """Add a signed manifest to a picture's file.

        Args:
            data: The file.
            kind: One of `KINDS`.
            facts: Content of the manifest.
            pixels: The file's decoded pixels, if known; otherwise it is decoded.

        Raises:
            ProvenanceError: It cannot be signed.
        """
        import c2pa

        try:
            return self._signed(data, kind, facts, pixels)
        except c2pa.C2paError as error:
            raise ProvenanceError(
                f"the picture cannot be signed ({_reason(error)}); try another certificate"
            ) from error

    def _signed(self, data: bytes, kind: str, facts: Facts, pixels: Image.Image | None = None) -> bytes:
        import c2pa

        assert kind in KINDS
        manifest = {
            "claim_generator_info": [{"name": TOOL, "version": version(TOOL)}],
            "assertions": list(
                _assertions(facts, _fingerprint(data) if pixels is None else Fingerprint.of(pixels))
            ),
        }
        own, out = self.certificate, io.BytesIO()
        # no time stamp service: nothing leaves this machine
        info = c2pa.C2paSignerInfo(own.algorithm.encode(), own.chain, own.key, None)
        with (
            c2pa.Signer.from_info(info) as signer,
            context() as surroundings,
            c2pa.Builder(json.dumps(manifest), surroundings) as builder,
        ):
            builder.sign(signer, f"image/{kind}", io.BytesIO(data), out)
        return out.getvalue()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


Sealing = Seal | bool
"""A seal, True for the machine's own if the extra is installed, or False for no signature."""


def installed() -> bool:
    """Whether the extra is installed."""
    return all(find_spec(name) is not None for name in ("c2pa", "cryptography"))


def require() -> None:
    """Check that the extra is installed.

    Raises:
        ProvenanceError: It is not installed.
    """
    if not installed():
        raise ProvenanceError(
            f"signing and checking pictures needs c2pa-python and cryptography; install them by pip install '{EXTRA}'"
        )


def seal_of(sealing: Sealing) -> Seal | None:
    """The seal or None; if the machine's own cannot be used, warns once and leaves pictures unsigned.

    Args:
        sealing: See `Sealing`.
    """
    if isinstance(sealing, Seal):
        return sealing
    if not sealing or not installed():
        return None
    with _opening:
        return _own_seal(own_file())


_opening = threading.Lock()


@lru_cache(maxsize=4)
def _own_seal(path: Path) -> Seal | None:
    del path  # the folder may change within a process; each is tried once
    try:
        return Seal.open()
    except ProvenanceError as error:
        warnings.warn(f"pictures are saved without a manifest: {error}", stacklevel=2)
        return None


def context(trusted: bytes = b"") -> Any:  # noqa: ANN401 - c2pa's own class
    """C2PA's settings: no network, no thumbnails in manifests.

    Args:
        trusted: PEM certificates to trust when reading a manifest.
    """
    import c2pa

    settings: dict[str, Any] = {
        "version": 1,
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    if trusted:
        settings["trust"] = {"user_anchors": trusted.decode()}
    return c2pa.Context(c2pa.Settings.from_json(json.dumps(settings)))


# ---- content


def _assertions(facts: Facts, pixels: Fingerprint) -> Iterator[dict[str, Any]]:
    agent = {"name": TOOL, "version": version(TOOL)}
    created = {"action": "c2pa.created", "softwareAgent": agent, "digitalSourceType": facts.source}
    told = {name: facts.about[name] for name in ("model", "model_hash", "method") if name in facts.about}
    likeness: dict[str, Any] = {"likeness_of_a_person": True, "consent": noted(facts.consent)}
    if notes := lines_of(facts.consent):
        likeness["consent_notes"] = list(notes)
    yield {"label": ACTIONS, "data": {"actions": [created]}}
    if told:
        yield {"label": MODEL, "data": told}
    yield {"label": LIKENESS, "data": likeness}
    yield {"label": PIXELS, "data": pixels.as_json()}
    if facts.prompts:
        yield {"label": PROMPT, "data": dict(facts.prompts)}


def _fingerprint(data: bytes) -> Fingerprint:
    """Fingerprint of the file's pixels, which in JPEG and WebP differ from the drawn ones."""
    with quiet_pillow(), Image.open(io.BytesIO(data), formats=[kind.upper() for kind in KINDS]) as picture:
        return Fingerprint.of(picture)


def facts_of(about: Mapping[str, str], text: Mapping[str, str], source: str, prompt: bool) -> Facts:
    """A manifest's facts, from the text of the picture's file.

    Args:
        about: See `Facts`.
        text: The picture's text.
        source: IPTC's digital source type.
        prompt: Whether to include the prompt.
    """
    names: Sequence[str] = ("prompt", "negative_prompt") if prompt else ()
    prompts = {name: text[name] for name in names if name in text}
    return Facts(about, text.get(CONSENT), prompts, source)

"""What a picture's file proves: reads and checks its manifest, and finds changes since signing."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from PIL import Image

from photomaker.errors import PhotoError, ProvenanceError
from photomaker.images import MAX_BYTES, quiet_pillow, read_photo
from photomaker.metadata import mark_of, text_of
from photomaker.outside import read_object
from photomaker.studio.provenance.certificates import anchors, own_anchor
from photomaker.studio.provenance.fingerprint import Fingerprint
from photomaker.studio.provenance.manifest import (
    ACTIONS,
    LIKENESS,
    MODEL,
    NOTE,
    PIXELS,
    PROMPT,
    TOOL,
    context,
    require,
)

UNTRUSTED = "signingCredential.untrusted"
_MIMES = {
    "PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif",
    "TIFF": "image/tiff", "AVIF": "image/avif", "HEIF": "image/heif",
}  # fmt: skip
_LONGEST, _MOST = 1000, 100
"""Most characters of a text and entries of a list that are shown from a foreign manifest."""
_CONTENT = ("assertion.dataHash.", "assertion.boxesHash.", "assertion.bmffHash.")


class State(StrEnum):
    """The possible states of a picture's file."""

    KNOWN = "unchanged, known certificate"
    UNKNOWN = "unchanged, unknown certificate"
    ALTERED = "altered"
    UNSIGNED = "no manifest"


@dataclass(frozen=True)
class Inspected:
    """What a picture's file proves and states.

    Attributes:
        name: Name of the file.
        state: The state in a few words.
        sentence: The result in one sentence.
        manifest: Content of the manifest, by readable names; empty if there is none.
        mark: IPTC's digital source type.
        text: This package's text in the file.
    """

    name: str
    state: State
    sentence: str
    manifest: Mapping[str, str] = field(default_factory=dict)
    mark: str | None = None
    text: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "file": self.name,
            "state": str(self.state),
            "sentence": self.sentence,
            "manifest": dict(self.manifest),
            "digital_source_type": self.mark,
            "text": dict(self.text),
        }


def inspect(
    path: str | os.PathLike[str],
    trust: str | os.PathLike[str] | None = None,
    original: str | os.PathLike[str] | None = None,
) -> Inspected:
    """Read and check how a picture's file says it was made; uses no network.

    Args:
        path: A picture.
        trust: PEM file of trusted certificates, besides this machine's own.
        original: A signed picture, if `path` may be a copy without its manifest.

    Raises:
        PhotoError: The file is missing, damaged, or not a picture.
        ProvenanceError: The extra is not installed, `trust` cannot be read, or `original` has no valid manifest of this
            package.
    """
    require()
    place = Path(path)
    others = b"" if trust is None else anchors(trust)
    seen = _Seen.of(place)
    own = seen.store(own_anchor())
    if original is not None and not own:
        return _compared(place.name, seen, Path(original))
    if _trusted(own):
        return _inspected(place.name, seen, own, True)
    return _inspected(place.name, seen, seen.store(others) if others else own, False)


def _inspected(name: str, seen: _Seen, store: Mapping[str, Any], own: bool) -> Inspected:
    state, sentence = _judged(seen, store, own)
    return Inspected(name, state, sentence, dict(_told(store)), seen.mark, seen.text)


def _trusted(store: Mapping[str, Any]) -> bool:
    return store.get("validation_state") == "Trusted"


@dataclass(frozen=True)
class _Seen:
    data: bytes
    mime: str
    fingerprint: Fingerprint
    mark: str | None
    text: Mapping[str, str]

    @classmethod
    def of(cls, path: Path) -> _Seen:
        data = _bytes(path)
        read_photo(data, path.name)  # raises if the file is not a picture
        with quiet_pillow(), Image.open(io.BytesIO(data)) as picture:
            picture.load()
            mime = _MIMES.get(str(picture.format), "")
            text = {
                _plain(name): _plain(value.replace("\n", "; ")) for name, value in text_of(picture).items()
            }
            mark = mark_of(picture)
            return cls(data, mime, Fingerprint.of(picture), mark and _plain(mark), text)

    def store(self, trusted: bytes) -> Mapping[str, Any]:
        return manifest_store(self.data, self.mime, trusted) if self.mime else {}


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise PhotoError(f"there is no picture {path}; check the path")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PhotoError(
                f"{path} is larger than {MAX_BYTES >> 20} MB, too large for a picture of photomaker; check the path"
            )
        return path.read_bytes()
    except OSError as error:
        raise PhotoError(f"cannot read {path}: {error.strerror}; check its permissions") from error


# ---- reading


def manifest_store(data: bytes, mime: str, trusted: bytes = b"") -> Mapping[str, Any]:
    """C2PA's checked report on a file; empty if the file has no manifest.

    Args:
        data: The file.
        mime: Its MIME type.
        trusted: PEM certificates.

    Returns:
        C2PA's report, or `{"damaged": reason}` if the manifest cannot be read.
    """
    import c2pa  # type: ignore[import-untyped]

    try:
        with (
            context(trusted) as surroundings,
            c2pa.Reader(mime, io.BytesIO(data), context=surroundings) as reader,
        ):
            return read_object(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return {}
    except (c2pa.C2paError, ValueError) as error:
        reason = _plain(str(error))
        if reason.startswith("Remote"):
            return {"remote": reason}
        return {"damaged": reason}


def failures(store: Mapping[str, Any]) -> list[str]:
    """C2PA's codes for failed checks of a manifest."""
    if "damaged" in store:
        return ["manifest.damaged"]
    results = store.get("validation_results") or {}
    active = results.get("activeManifest") or {}
    deltas = [one.get("validationDeltas") or {} for one in _objects(results.get("ingredientDeltas"))]
    return [str(one.get("code")) for part in (active, *deltas) for one in _objects(part.get("failure"))]


def _active(store: Mapping[str, Any]) -> Mapping[str, Any]:
    found = (store.get("manifests") or {}).get(store.get("active_manifest"))
    return found if isinstance(found, Mapping) else {}


def _assertion(store: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    for one in _objects(_active(store).get("assertions")):
        if one.get("label") == label and isinstance(one.get("data"), Mapping):
            return dict(one["data"])
    return {}


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    """The objects in what should be a list of objects."""
    listed = value if isinstance(value, list) else []
    yield from (one for one in listed[:_MOST] if isinstance(one, Mapping))


def _signer(store: Mapping[str, Any]) -> str:
    info = _active(store).get("signature_info") or {}
    common, issuer = (_plain(info.get(name) or "") for name in ("common_name", "issuer"))
    return f"{common} ({issuer})" if common and issuer else common or issuer or "an unnamed signer"


# ---- judging


def _judged(seen: _Seen, store: Mapping[str, Any], own: bool) -> tuple[State, str]:
    if not store or "remote" in store:
        return State.UNSIGNED, _unsigned(seen, "remote" in store)
    wrong = [code for code in failures(store) if code != UNTRUSTED]
    content = [code for code in wrong if code.startswith(_CONTENT)]
    if set(wrong) - set(content):
        return State.ALTERED, _broken(wrong)
    if content:
        return State.ALTERED, _changed(seen, store)
    known = own or _trusted(store)
    return State.KNOWN if known else State.UNKNOWN, _whole(_signer(store), own, known)


def _whole(signer: str, own: bool, known: bool) -> str:
    if own:
        return "it is unchanged since this machine signed it, which does not prove who made it"
    if known:
        return f"it is unchanged since {signer} signed it, whose certificate is trusted here"
    return (
        f"it is unchanged since it was signed in the name of {signer}, by a certificate that is unknown here: anybody "
        "can create one in any name"
    )


def _unsigned(seen: _Seen, elsewhere: bool) -> str:
    if elsewhere:
        return "its manifest is stored elsewhere and was not downloaded; nothing was checked"
    if NOTE in seen.text:
        return "its text says that it was signed, but the manifest is gone: it was removed or lost in re-encoding"
    if TOOL in seen.text.get("Software", ""):
        return "it has no manifest; its text says that photomaker made it, which nothing proves"
    if seen.mark is not None:
        return "it has no manifest; an IPTC mark says how it was made, which nothing proves"
    return "it has no record of its origin: it never had one, or its metadata was stripped or lost in re-encoding"


def _broken(codes: Sequence[str]) -> str:
    if "manifest.damaged" in codes:
        return "its manifest is damaged and cannot be read"
    if "signingCredential.expired" in codes or "claimSignature.outsideValidity" in codes:
        return "it was signed by a certificate that was not valid then"
    return f"its manifest was altered after signing and cannot be trusted ({_plain(codes[0])})"


def _changed(seen: _Seen, store: Mapping[str, Any]) -> str:
    was = Fingerprint.read(_assertion(store, PIXELS))
    if was is None:
        return f"it was changed after {_signer(store)} signed it; the manifest does not say how"
    how = was.change(seen.fingerprint)
    if how is None:
        return "its pixels are as they were signed, and the rest of the file (text, metadata, packing) was changed"
    return f"it was changed after signing: {how}"


def _compared(name: str, seen: _Seen, original: Path) -> Inspected:
    """Compare a file without a manifest with a signed one."""
    store = _Seen.of(original).store(b"")
    was = Fingerprint.read(_assertion(store, PIXELS))
    wrong = [code for code in failures(store) if code != UNTRUSTED and not code.startswith(_CONTENT)]
    if was is None or wrong:
        raise ProvenanceError(
            f"{original} has no valid manifest of photomaker; give the picture as it was signed"
        )
    how = was.change(seen.fingerprint)
    if how is None:
        said = f"its metadata was stripped: the pixels are those that {original.name} was signed with"
    else:
        said = f"it has no manifest; compared with {original.name}, {how}"
    return Inspected(name, State.UNSIGNED, said, {}, seen.mark, seen.text)


# ---- telling


def _told(store: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not _active(store):
        return
    yield "signed by", _signer(store)
    if when := (_active(store).get("signature_info") or {}).get("time"):
        yield "signed at", _plain(when)
    for generator in _objects(_active(store).get("claim_generator_info")):
        yield "tool", _plain(f"{generator.get('name', '')} {generator.get('version', '')}")
        break
    actions = _assertion(store, ACTIONS) or _assertion(store, "c2pa.actions")
    for action in _objects(actions.get("actions")):
        source = str(action.get("digitalSourceType", "")).rpartition("/")[2]
        yield _plain(action.get("action", "action")), _plain(source or "-")
    yield from ((name, _plain(value)) for name, value in _assertion(store, MODEL).items())
    likeness = _assertion(store, LIKENESS)
    if likeness:
        yield "likeness of a person", "used" if likeness.get("likeness_of_a_person") else "not used"
        yield "consent", _plain(likeness.get("consent", "not noted"))
        notes = likeness.get("consent_notes")
        if isinstance(notes, list) and notes:
            yield "consent notes", _plain("; ".join(map(str, notes[:_MOST])))
    yield from ((name, _plain(value)) for name, value in _assertion(store, PROMPT).items())


def _plain(value: object) -> str:
    """Foreign text, without control characters and truncated."""
    told = " ".join("".join(one if one.isprintable() else " " for one in str(value)).split())
    return told if len(told) <= _LONGEST else told[:_LONGEST] + "…"

"""What a picture's file says about it: text and IPTC's mark of generated pictures, in PNG, JPEG and WebP."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from photomaker.outside import read_object

KINDS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""Kinds of files that pictures are written as, and the ending of each."""
_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
BY_MODEL = _SOURCE_TYPES + "trainedAlgorithmicMedia"
"""IPTC's digital source type of what a trained model made."""
EDITED_BY_MODEL = _SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
"""IPTC's digital source type of a picture of which a trained model drew a part."""
BY_CODE = _SOURCE_TYPES + "algorithmicMedia"
"""IPTC's digital source type of what an algorithm drew without any training."""

QUALITY = 95
"""Of JPEG and WebP, both with loss."""
MOST_EXIF = 60_000
"""Bytes of text in a JPEG or WebP; a segment of a JPEG holds no more than 65,533."""
_EXIF_IFD, _SOFTWARE, _USER_COMMENT, _ASCII = 0x8769, 0x0131, 0x9286, b"ASCII\0\0\0"
_XMP_KEY, _MARK_KEY = "XML:com.adobe.xmp", "DigitalSourceType"
_MARK = re.compile(r"""DigitalSourceType(?:\s*=\s*["']|[^<>]*rdf:resource\s*=\s*["']|\s*>\s*)([^"'<>\s]+)""")


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """The kind of file that a name's ending stands for, of `KINDS`; None if it is another or none."""
    return _SUFFIXES.get(Path(path).suffix.lower())


def encoded(
    image: Image.Image,
    kind: str = "png",
    text: Mapping[str, str] | None = None,
    source: str | None = BY_MODEL,
) -> bytes:
    """A picture as the bytes of a file, with what it says of itself.

    Args:
        image: The picture.
        kind: One of `KINDS`.
        text: Prompt, seed and so on: text chunks of a PNG, in JPEG and WebP a JSON object in EXIF's user comment.
        source: Digital source type, noted in XMP as IPTC defines it; None notes nothing.
    """
    buffer = io.BytesIO()
    told = dict(text or {})
    if kind == "png":
        image.save(buffer, "PNG", pnginfo=_text_chunks(told, source))
        return buffer.getvalue()
    xmp = {} if source is None else {"xmp": _xmp(source).encode()}
    exif = _exif(told)
    rgb = image.convert("RGB")
    if kind == "jpeg":
        rgb.save(buffer, "JPEG", quality=QUALITY, subsampling=0, exif=exif, **xmp)
    else:
        rgb.save(buffer, "WEBP", quality=QUALITY, exif=exif, **xmp)
    return buffer.getvalue()


def _text_chunks(text: Mapping[str, str], source: str | None) -> PngInfo:
    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value)
    if source is not None:
        info.add_text(_MARK_KEY, source)
        info.add_itxt(_XMP_KEY, _xmp(source))
    return info


def _xmp(source: str) -> str:
    """The packet by which software knows a generated picture (IPTC Photo Metadata, Digital Source Type)."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f"Iptc4xmpExt:DigitalSourceType={quoteattr(source)}/>"
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def _exif(text: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    if "Software" in text:
        exif[_SOFTWARE] = text["Software"]
    exif[_EXIF_IFD] = {_USER_COMMENT: _ASCII + _fitting(text)}
    return exif


def _fitting(text: Mapping[str, str]) -> bytes:
    """The text as JSON, its longest values shortened until it fits."""
    kept = dict(text)
    while len(data := json.dumps(kept).encode()) > MOST_EXIF:
        longest = max(kept, key=lambda name: len(json.dumps(kept[name])))
        kept[longest] = kept[longest][: len(kept[longest]) // 2] + "…"
    return data


# ---- reading


def text_of(picture: Image.Image) -> dict[str, str]:
    """The text that `encoded` put into a picture's file; empty if there is none, or it is damaged.

    Args:
        picture: Opened by Pillow from a file, and loaded: a PNG has text behind its pixels too.
    """
    chunks = getattr(picture, "text", None)
    if isinstance(chunks, dict) and chunks:
        return {str(name): str(value) for name, value in chunks.items() if name not in (_XMP_KEY, _MARK_KEY)}
    try:
        comment = picture.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
        told = read_object(comment.removeprefix(_ASCII)) if isinstance(comment, bytes) else {}
    except (ValueError, OSError, SyntaxError, LookupError, TypeError, AttributeError):
        return {}  # somebody else's comment, or side information that is damaged
    return {name: value for name, value in told.items() if isinstance(value, str)}


def mark_of(picture: Image.Image) -> str | None:
    """The IPTC digital source type in a picture's XMP; None if there is none."""
    packet = picture.info.get("xmp") or picture.info.get(_XMP_KEY) or b""
    found = _MARK.search(packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet))
    return found[1] if found else None

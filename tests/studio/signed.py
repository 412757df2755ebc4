"""Signed pictures, other people's certificates, and what is done to files after signing."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from photomaker.studio.desk import folders
from photomaker.studio.provenance import certificates
from photomaker.studio.provenance.manifest import context
from photomaker.types import Request, Sample, Sampling

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
ABOUT = {"Software": "photomaker 0.1.0", "model": "small", "model_hash": "abc123", "method": "photomaker"}


def drawing(side: int = 96) -> Image.Image:
    """A picture in which every part differs from every other, smooth enough for JPEG."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((side, side), 3)


def sample(prompt="a photo of a man img", **notes) -> Sample:
    return Sample(drawing(), Request(prompt, Sampling(seed=7)), 0.5, notes)


def other_certificate(folder: Path, monkeypatch) -> Path:
    """PEM file with key and certificate of somebody else."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv(folders.HOME, str(folder / "somebody"))
        certificates.own_certificate()
        return certificates.own_file()


def pixels(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture.convert("RGB")


def encoded_as(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind.upper(), **options)
    return buffer.getvalue()


# ---- a file's own pieces


def with_manifest_of(signed: bytes, other: bytes) -> bytes:
    """Another file of the same kind with a signed file's manifest put into it."""
    if signed.startswith(b"\x89PNG"):
        own = [raw for name, raw in chunks(signed) if name == b"caBX"]
        head, *rest = [raw for _, raw in chunks(other)]
        return other[:8] + head + b"".join(own) + b"".join(rest)
    if signed.startswith(b"\xff\xd8"):
        return other[:2] + b"".join(raw for mark, raw in segments(signed) if mark == 0xEB) + other[2:]
    own = b"".join(raw for name, raw in parts(signed) if name == b"C2PA")
    body = b"WEBP" + b"".join(raw for _, raw in parts(other)) + own
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chunks(png: bytes):
    """Names of a PNG's chunks, and each as it lies."""
    place = 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        yield png[place + 4 : place + 8], png[place : place + 12 + length]
        place += 12 + length


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def segments(jpeg: bytes):
    place = 2
    while jpeg[place + 1] != 0xDA:
        (length,) = struct.unpack(">H", jpeg[place + 2 : place + 4])
        yield jpeg[place + 1], jpeg[place : place + 2 + length]
        place += 2 + length


def parts(webp: bytes):
    place = 12
    while place < len(webp):
        (length,) = struct.unpack("<I", webp[place + 4 : place + 8])
        whole = 8 + length + length % 2
        yield webp[place : place + 4], webp[place : place + whole]
        place += whole


def signed_by_another_tool(certificate: Path, png: bytes, assertions=(), elsewhere=None) -> bytes:
    """A PNG with a manifest as another program writes it."""
    import c2pa

    found = certificates.given_certificate(certificate, certificate)
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    told = {"actions": [{"action": "c2pa.created", "digitalSourceType": source}, {"action": "c2pa.edited"}]}
    written = {
        "claim_generator_info": [{"name": "Brush \x1b[31m", "version": "3"}],
        "assertions": [{"label": "c2pa.actions", "data": told}, *assertions],
    }
    info, out = c2pa.C2paSignerInfo(b"es256", found.chain, found.key, None), io.BytesIO()
    with (
        c2pa.Signer.from_info(info) as signer,
        context() as unchecked,
        c2pa.Builder(json.dumps(written), unchecked) as builder,
    ):
        if elsewhere is not None:
            builder.set_no_embed()
            builder.set_remote_url(elsewhere)
        builder.sign(signer, "image/png", io.BytesIO(png), out)
    return out.getvalue()

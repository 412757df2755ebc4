"""One mutator for every kind of file: bytes are changed, cut, doubled and swapped, headers are given wild values."""

from __future__ import annotations

import json
import random
import struct

WORDS = (
    b"\x00", b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"[" * 5000, b"{" * 600, b'"',
    b"-1", b"9" * 5000, b"1e999", b"NaN", b"null", b"\xed\xa0\x80", b"../../../outside", b"&a [*a]", b"%00", b"\n",
)  # fmt: skip
HEADER = 8


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with one to four things wrong with it; now and then a safetensors header that is wrong in its values."""
    if rng.random() < 0.3:
        changed = _header(data, rng)
        if changed is not None:
            return changed
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_WAYS)(data, rng)
    return data


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 16)):
        if out:
            # headers decide most: half of the changes are near the beginning
            place = rng.randrange(min(len(out), 512) if rng.random() < 0.5 else len(out))
            out[place] = rng.randrange(256)
    return bytes(out)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _drop(data: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def _insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(data))
    return data[:start] + rng.choice(WORDS) + data[start:]


def _double(data: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(data))
    part = data[start : start + rng.randint(1, 2048)]
    return data[:start] + part * rng.randint(2, 4) + data[start + len(part) :]


def _swap(data: bytes, rng: random.Random) -> bytes:
    if len(data) < 4:
        return data
    first, second = sorted(rng.sample(range(len(data)), 2))
    return data[:first] + data[second:] + data[first:second]


_WAYS = (_flip, _flip, _flip, _cut, _drop, _insert, _double, _swap)


def _header(data: bytes, rng: random.Random) -> bytes | None:
    """A safetensors file whose header is still JSON and says something else; None for other files."""
    try:
        (length,) = struct.unpack("<Q", data[:HEADER])
        header = json.loads(data[HEADER : HEADER + length])
    except (struct.error, ValueError, OverflowError):
        return None
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(header))
        if name == "__metadata__" and header[name]:
            key = rng.choice(list(header[name]))
            wild = [
                "",
                "[]",
                "[" * 3000,
                "{}",
                "null",
                "x",
                "9" * 5000,
                '{"a": ' * 2000,
                "\x00",
                '{"defaults": 5}',
            ]
            if rng.random() < 0.3:
                del header[name][key]
            else:
                header[name][key] = rng.choice(wild)
        elif rng.random() < 0.3:
            header[f"{name}.{rng.randrange(9)}"] = header.pop(name)
        elif name in header and isinstance(header[name], dict) and "dtype" in header[name]:
            # the same bytes read as another type or shape of as many
            shape = header[name]["shape"]
            header[name]["shape"] = rng.choice([shape[::-1], [1, *shape], [*shape, 1]])
            if rng.random() < 0.5:
                header[name]["dtype"] = {"F32": "I32", "F16": "I16", "BF16": "F16"}.get(
                    header[name]["dtype"], "U8"
                )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[HEADER + length :]

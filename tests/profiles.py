"""Small ICC profiles written by hand from public figures: Display P3, Adobe RGB, grey, and inks.

Source: ICC.1:2010 (file layout, sections 7 to 10); SMPTE EG 432-1 and Adobe RGB (1998) for the primaries.
"""

from __future__ import annotations

import struct
from itertools import product

import numpy as np

BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50, D65 = np.array([0.9642, 1.0, 0.8249]), np.array([0.95046, 1.0, 1.08906])
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def colorants(primaries) -> np.ndarray:
    """XYZ of the primaries, one a column, seen under D50."""
    columns = np.stack([_xyz(*one) for one in primaries], 1)
    columns = columns * np.linalg.solve(columns, D65)
    adapt = np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ D50 / (BRADFORD @ D65)) @ BRADFORD
    return adapt @ columns


def _fixed(values) -> bytes:
    return b"".join(struct.pack(">i", round(float(one) * 65536)) for one in values)


def _srgb_curve() -> bytes:
    return (
        b"para"
        + bytes(4)
        + struct.pack(">HH", 3, 0)
        + _fixed((2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    )


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def _profile(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"made for a test\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + text,
        b"wtpt": b"XYZ " + bytes(4) + _fixed(D50),
    } | tags
    start = 128 + 4 + 12 * len(tags)
    table, body = b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = struct.pack(">I", start + len(body))
    head = (
        size
        + bytes(4)
        + struct.pack(">I", 0x02400000)
        + kind
        + space
        + pcs
        + struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    )
    head += b"acsp" + bytes(28) + _fixed(D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def display(primaries, gamma: float | None = None) -> bytes:
    """A display's profile: three primaries under D65, and a gamma or, without one, sRGB's curve."""
    curve = _srgb_curve() if gamma is None else _gamma(gamma)
    points = colorants(primaries).T
    tags = {
        name + b"XYZ": b"XYZ " + bytes(4) + _fixed(one)
        for name, one in zip((b"r", b"g", b"b"), points, strict=True)
    }
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | {name + b"TRC": curve for name in (b"r", b"g", b"b")})


def grey(gamma: float) -> bytes:
    """A grey profile of one gamma."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(gamma)})


def ink_lab(cyan: int, magenta: int, yellow: int, black: int) -> tuple[int, int, int]:
    """Lab of full inks (0 or 1) on the paper of a printer that was made up, all within sRGB."""
    lightness = 100 - 20 * cyan - 25 * magenta - 5 * yellow - 40 * black
    strength = 0 if black else 1
    return (
        lightness,
        strength * (15 * magenta - 15 * cyan),
        strength * (20 * yellow - 10 * cyan - 5 * magenta),
    )


def inks() -> bytes:
    """A printer's profile: a table of what all combinations of full inks look like."""
    corners = b"".join(
        bytes((round(light * 2.55), a + 128, b + 128))
        for light, a, b in (ink_lab(*one) for one in product((0, 1), repeat=4))
    )
    straight = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + _fixed((1, 0, 0, 0, 1, 0, 0, 0, 1))
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table + straight * 4 + corners + straight * 3})


def srgb_of_xyz(xyz: np.ndarray) -> np.ndarray:
    """XYZ under D50 as sRGB in 0..255, not rounded."""
    light = np.clip(np.linalg.solve(colorants(SRGB), xyz), 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_of_lab(lightness: float, a: float, b: float) -> np.ndarray:
    """Lab under D50 as sRGB in 0..255, not rounded."""
    middle = (lightness + 16) / 116
    roots = np.array([middle + a / 500, middle, middle - b / 200])
    return srgb_of_xyz(D50 * np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)))

"""Colour profiles (ICC version 2) made by hand: of RGB, grey and CMYK pictures."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

WHITE = np.array([0.9642, 1.0, 0.8249])  # D50, in XYZ
# The colours red, green and blue in XYZ, adapted to D50: one per row
ADOBE = np.array(
    [[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]]
)
P3 = np.array(
    [[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]]
)
SRGB = np.array(
    [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]
)

Curve = Callable[[np.ndarray], np.ndarray]  # from what is stored to light, both 0 to 1


def adobe_curve(stored: np.ndarray) -> np.ndarray:
    return stored ** (563 / 256)


def srgb_curve(stored: np.ndarray) -> np.ndarray:
    return np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)


def srgb_stored(light: np.ndarray) -> np.ndarray:
    """The inverse of `srgb_curve`."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def rgb_profile(primaries: np.ndarray, curve: Curve) -> bytes:
    tags = {name + b"XYZ": _xyz(row) for name, row in zip((b"r", b"g", b"b"), primaries)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | {c + b"TRC": _curve(curve) for c in RGB})


def grey_profile(curve: Curve) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(curve)})


def cmyk_profile(points: int = 9) -> bytes:
    """Of a press whose inks are duller than those of the plain formula R = (1 - C)(1 - K)."""
    inks = np.stack(np.meshgrid(*[np.linspace(0, 1, points)] * 4, indexing="ij"), -1)
    reflected = (1 - inks[..., :3] * [0.85, 0.75, 0.9]) * (1 - 0.9 * inks[..., 3:]) ** 1.4
    table = _lab(reflected.reshape(-1, 3)).tobytes()
    identity = bytes(range(256))
    one = [65536 * (i % 4 == 0) for i in range(9)]  # the identity matrix
    lut = b"mft1" + bytes(4) + bytes([4, 3, points, 0]) + struct.pack(">9i", *one)
    tag = lut + identity * 4 + table + identity * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": tag})


RGB = (b"r", b"g", b"b")


def _lab(light: np.ndarray) -> np.ndarray:
    """Linear sRGB (n, 3) to Lab of 8 bits, as tables of a profile hold it."""
    ratio = light @ SRGB / WHITE
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lightness = (116 * f[:, 1] - 16) * 2.55
    a, b = 500 * (f[:, 0] - f[:, 1]) + 128, 200 * (f[:, 1] - f[:, 2]) + 128
    return np.clip(np.stack([lightness, a, b], 1).round(), 0, 255).astype(np.uint8)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *np.round(values * 65536).astype(int).tolist())


def _curve(curve: Curve) -> bytes:
    values = np.round(curve(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + values.tobytes()


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"made for a test\0"
    tags = tags | {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(79),
        b"cprt": b"text" + bytes(4) + text,
        b"wtpt": _xyz(WHITE),
    }
    table, data, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", at + len(data), len(content))
        data += content
    header = struct.pack(
        ">I4sI4s4s4s", at + len(data), bytes(4), 0x02100000, kind, space, connection
    )
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    white = struct.pack(">3i", *np.round(WHITE * 65536).astype(int).tolist())
    return header + white + bytes(48) + table + data

"""JPEG files that end before their end marker: whether their pixels are all there.

libjpeg fills what is missing with grey, and Pillow does not tell. So the picture is decoded twice,
with different bytes after the cut: what differs then is what the file does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

END = b"\xff\xd9"
MARKER = re.compile(rb"\xff[\x01-\xcf\xda-\xfe]")  # but those inside the pixels of a scan
START_OF_SCAN = 0xDA
COEFFICIENTS = 64  # of a block
LOST = 0.01  # share of the pixels that may be missing
OTHER = bytes(range(254, 0, -1)) * 9  # stands for what is missing: no zeros, no marker


def completions(content: bytes, components: int) -> tuple[bytes, bytes] | None:
    """The file with an end, and the same with other bytes before the end.

    None if it has an end, or if its scans do not give all coefficients of its `components`, as of
    a progressive JPEG that is cut early: then its pixels are there, but not as they should be.
    """
    if content.endswith(END) or not _all_scanned(content, components):
        return None
    whole = content.rstrip(b"\xff")  # the first half of the end marker
    return whole + END, whole + OTHER * (1 + len(content) // len(OTHER)) + END


def nearly_whole(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the pixels (S, S, 3) of the two completions differ in a few places at most."""
    return bool((one != other).any(-1).mean() <= LOST)


def _all_scanned(content: bytes, components: int) -> bool:
    """Whether the scans give the last bit of each coefficient of each component."""
    given: dict[int, set[int]] = {}
    for scan in _scans(content):
        count = scan[0]
        if len(scan) != 4 + 2 * count:
            return False
        first, last, bits = scan[-3:]
        if bits % 16 == 0:  # no bits are left for later scans
            for component in scan[1 : 1 + 2 * count : 2]:
                given.setdefault(component, set()).update(range(first, last + 1))
    return len(given) == components and all(len(c) >= COEFFICIENTS for c in given.values())


def _scans(content: bytes) -> Iterator[bytes]:
    """The parameters of each scan: components, spectral range, bits; from its header."""
    at = 2
    while found := MARKER.search(content, at):
        start = found.end()
        end = start + int.from_bytes(content[start : start + 2], "big")
        if content[start - 1] == START_OF_SCAN and start + 3 <= end <= len(content):
            yield content[start + 2 : end]
        at = max(end, start)

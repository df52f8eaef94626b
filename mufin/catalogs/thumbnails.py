"""Amazon's URLs of pictures without the size in them: they lead to the full picture then."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from mufin.ragged import offsets_of

# Amazon's size marker in a URL, such as `._SX38_SY50_CR,0,0,38,50_` before the extension.
MARKER = re.compile(r"\._[^/]*_(?=\.\w+$)")
WORD = np.array([re.fullmatch(r"\w", chr(byte), re.ASCII) is not None for byte in range(256)])
DOT, SLASH, UNDERSCORE = b"./_"


def without_size(url: str) -> str:
    """The URL of the full picture."""
    return MARKER.sub("", url)


def without_sizes(urls: pa.StringArray) -> pa.StringArray:
    """`without_size` of each URL; they are ASCII and none is null.

    By positions in the text of all URLs: a third of the time of a regular expression with groups.
    """
    offsets = np.frombuffer(urls.buffers()[1], np.int32)[urls.offset :][: len(urls) + 1]
    if not len(urls) or offsets[0] == offsets[-1]:
        return urls
    text = np.frombuffer(urls.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    starts, ends = offsets[:-1] - offsets[0], offsets[1:] - offsets[0]
    others = np.flatnonzero(~WORD[text])
    dot = _last_before(others, ends)  # a dot, if there is an extension
    slash = _last_before(others[text[others] == SLASH], dot)
    dots = others[text[others] == DOT]
    openings = dots[np.append(text, DOT)[dots + 1] == UNDERSCORE]
    opening = np.append(openings, len(text))[np.searchsorted(openings, np.maximum(slash, starts))]
    found = (dot >= starts) & (text[dot] == DOT) & (dot + 1 < ends)
    found &= (text[np.maximum(dot - 1, 0)] == UNDERSCORE) & (opening + 2 < dot)
    changes = np.zeros(len(text), np.int8)
    changes[opening[found]], changes[dot[found]] = 1, -1
    kept = text[np.cumsum(changes, dtype=np.int8) == 0]
    lengths = ends - starts - np.where(found, dot - opening, 0)
    new = offsets_of(lengths).astype(np.int32)
    return pa.StringArray.from_buffers(len(urls), pa.py_buffer(new), pa.py_buffer(kept))


def _last_before(positions: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The last of the ascending positions before each end, -1 for none."""
    return np.append(-1, positions)[np.searchsorted(positions, ends)]

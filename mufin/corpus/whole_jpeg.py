"""JPEGs without faults and in usual colours, by libjpeg-turbo's own interface, faster than Pillow.

Both have the same decoder and give equal pixels; Pillow hands it the file in pieces, and does not
tell its warnings. Here any warning, as of bytes that are damaged or missing, leaves the file to
Pillow, which alone decides what is refused.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from simplejpeg import decode_jpeg

ORIENTATION = 0x0112  # of EXIF; 2 to 8 are turns
TURNS = range(2, 9)


def whole(content: bytes, header: Image.Image) -> Image.Image | None:
    """The picture, if it is one of those above, else None.

    Its bands are red, green, blue and one without meaning: its mode is CMYK, the one of four bands
    that Pillow takes from memory without a copy and that has no transparency. `header` is the
    picture as Pillow opened it, nothing decoded: its size bounds the memory. Raises MemoryError.
    """
    if header.mode not in ("L", "RGB") or _turned(header):
        return None
    pixels = np.empty((header.height, header.width, 4), np.uint8)
    try:
        pixels = decode_jpeg(content, "RGBX", buffer=pixels)
    except ValueError:  # of a warning, an error, or a second header that says a larger size
        return None
    if pixels.shape[:2] != (header.height, header.width):
        return None
    return Image.frombuffer("CMYK", header.size, pixels, "raw", "CMYK", 0, 1)


def _turned(header: Image.Image) -> bool:
    """Whether EXIF has the picture turned, or is broken."""
    try:
        return header.getexif().get(ORIENTATION) in TURNS
    except MemoryError:
        raise
    except Exception:  # SyntaxError, struct.error and others
        return True

"""Pictures of a caller, judged by their size and header before any decoder sees them."""

from __future__ import annotations

import base64
import binascii
import io
from importlib.util import find_spec

from PIL import Image

from mufin.corpus import pixels  # which sets Pillow's bounds
from mufin.corpus.formats import format_of, refusal
from mufin.serving.web.limits import PIXELS
from mufin.serving.web.refusals import Refusal

TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "HEIF": "image/heic",
}


def media_type(content: bytes) -> str:
    """By the first bytes; a browser never guesses another."""
    return TYPES.get(format_of(content), "application/octet-stream")


def check_picture(content: bytes, field: str, most: int) -> None:
    """Raises Refusal if these bytes are no picture that is read, or too large a one."""
    if len(content) > most:
        raise Refusal(
            413, f"{field} has {len(content):,} bytes; it must have at most {most:,}", field
        )
    if reason := refusal(content):
        raise Refusal(422, f"{field} is not used ({reason}); send a JPEG, PNG or WebP", field)
    size = _pixels(content)
    if size is None:
        raise Refusal(422, f"{field} is not used ({pixels.BROKEN}); send a whole picture", field)
    if size > PIXELS:
        text = f"{field} has more than {PIXELS:,} pixels; send a smaller picture"
        raise Refusal(422, text, field)


def _pixels(content: bytes) -> int | None:
    """The number of pixels by the header, None if it is broken; decodes none."""
    name = format_of(content)
    if name == "HEIF" and find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    try:
        with Image.open(io.BytesIO(content), formats=[name]) as image:
            return image.width * image.height or None
    except Image.DecompressionBombError:
        return PIXELS + 1
    except Exception:  # Pillow's plugins raise many classes, also struct.error
        return None


def decoded(text: str, field: str, most: int) -> bytes:
    """The bytes of base64, of which `most` are allowed; a data URL's head is passed over."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Refusal(422, f"{field} is a data URL, but not one of base64", field)
    if len(text) // 4 * 3 > most + 3:
        raise Refusal(413, f"{field} is too large; it must have at most {most:,} bytes", field)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, f"{field} is not base64; encode the bytes of a picture", field) from None

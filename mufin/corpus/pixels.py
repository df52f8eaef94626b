"""Picture bytes to square uint8 arrays: RGB, aspect ratio kept, centred on white.

The image encoder E_V (MUFIN Sec. 3; App. D) applies its own mean and standard deviation later.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

# Pillow warns about faulty files; here a faulty picture is counted by its reason instead.
warnings.filterwarnings("ignore", module="PIL")

# A picture with more pixels is refused: opening it would take over 800 MB, 3 bytes per pixel.
MAX_PIXELS = 2**28


def decode(content: bytes, size: int) -> np.ndarray | str:
    """(size, size, 3) uint8, or the reason why these bytes give no picture; never raises.

    EXIF rotation is applied, transparent pixels become white, 16-bit grey is scaled to 8 bits, and
    an animation gives its first frame.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                return "too many pixels"
            if min(image.size) < 1:
                return "no pixels"
            if image.format == "JPEG":
                image.draft(None, _draft_size(image.size, size))
            return _canvas(_rgb(ImageOps.exif_transpose(image)), size)
    except Image.DecompressionBombError:
        return "too many pixels"
    except Image.UnidentifiedImageError:
        return "not a picture"
    except Exception:  # Pillow's decoders raise many classes on broken bytes, also struct.error
        return "corrupt or truncated"


def _draft_size(size: tuple[int, int], target: int) -> tuple[int, int]:
    """The (width, height) to request from Pillow's draft mode for a JPEG of this size.

    Draft mode decodes a JPEG at 1/2, 1/4 or 1/8 of its size, at a fraction of the cost, and gives
    at least the size requested. Both sides keep at least twice their final length, which the
    antialiased resize in `_canvas` needs.
    """
    ratio = max(size) / target
    if ratio <= 2:
        return size
    width, height = (max(int(side / ratio * 2), 1) for side in size)
    return width, height


def _rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB."""
    if image.mode.startswith("I") or image.mode == "F":  # integer or float grey
        grey = np.asarray(image, np.float64)
        # 16-bit grey has mode I;16 or I. Mode I also holds 8-bit grey, so there the largest value
        # decides.
        deep = image.mode.startswith("I;16") or image.mode == "I" and grey.max(initial=0) > 255
        top = 65535.0 if deep else 255.0
        shallow = np.clip(grey * (255.0 / top), 0, 255).astype(np.uint8)
        return Image.fromarray(shallow).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _canvas(image: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the picture, resized to fit, in the middle of a white square."""
    scale = size / max(image.size)
    # A long, thin picture keeps at least one pixel of its shorter side.
    width, height = (max(1, min(size, round(side * scale))) for side in image.size)
    canvas = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    canvas[top : top + height, left : left + width] = np.asarray(resized)
    return canvas


def decode_all(contents: list[tuple[str, bytes]], size: int) -> list[tuple[str, np.ndarray | str]]:
    """`decode` of each (key, bytes): one task of a pool."""
    return [(key, decode(content, size)) for key, content in contents]

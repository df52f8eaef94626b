"""Picture bytes to square uint8 arrays: RGB, aspect kept, centred on white (METHOD, Images)."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

warnings.filterwarnings(
    "ignore", module="PIL"
)  # what is wrong with a picture is its reason, counted

MAX_PIXELS = (
    2**28
)  # a picture with more is refused: at 3 bytes a pixel it would take 800 MB to open


def decode(content: bytes, size: int) -> np.ndarray | str:
    """(size, size, 3) uint8, or the reason why these bytes give none.

    EXIF rotation is applied, transparency is laid on white, of an animation the first frame counts, 16-bit grey is
    scaled to 8. JPEGs are decoded at a power-of-two scale with both sides still twice the target: what antialiasing
    needs, at a fraction of the work.
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
    except (
        Exception
    ):  # Pillow's decoders raise a dozen classes on broken bytes, struct.error among them
        return "corrupt or truncated"


def _draft_size(size: tuple[int, int], target: int) -> tuple[int, int]:
    """A size to ask draft mode for so that the shorter thumbnail side has at least twice its pixels."""
    ratio = max(size) / target
    return (
        (max(int(size[0] / ratio * 2), 1), max(int(size[1] / ratio * 2), 1)) if ratio > 2 else size
    )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, np.float64)
        deep = image.mode.startswith("I;16") or image.mode == "I" and grey.max(initial=0) > 255
        top = 65535.0 if deep else 255.0
        return Image.fromarray(np.clip(grey * (255.0 / top), 0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _canvas(image: Image.Image, size: int) -> np.ndarray:
    """The thumbnail, antialiased bicubic, in the middle of a white square."""
    scale = size / max(image.size)
    width, height = (max(1, min(size, round(side * scale))) for side in image.size)
    canvas = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(
        image.resize((width, height), Image.Resampling.BICUBIC)
    )
    return canvas


def decode_all(contents: list[tuple[str, bytes]], size: int) -> list[tuple[str, np.ndarray | str]]:
    """`decode` of each (key, bytes): the work of one process of a pool."""
    return [(key, decode(content, size)) for key, content in contents]

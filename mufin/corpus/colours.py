"""Colours of a picture that has a profile (ICC) in sRGB, as browsers show them.

sRGB is what a picture without a profile is in, and what the image encoder E_V was trained on.
"""

from __future__ import annotations

import io
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsProfile, ImageCmsTransform

LARGEST = 2**22  # bytes of a profile; those of printing presses have 0.5 to 3 MB
SAME = 2  # levels of 255: a profile that changes no colour by more than this is one of sRGB

# The colour space that a profile names -> the mode of the pictures it fits
MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
GREY = ("1", "L", "LA", "La", "I", "F")


class Unsuitable(Exception):
    """The profile is broken, or does not fit the picture."""


def conversion(image: Image.Image) -> ImageCmsTransform | None:
    """What converts the colours of the picture to sRGB; None if they are in it already.

    Its `input_mode` is L, RGB or CMYK, its output mode RGB. The intent is perceptual, as in
    browsers. Raises Unsuitable.
    """
    if not (profile := image.info.get("icc_profile")):
        return None
    if not isinstance(profile, bytes) or len(profile) > LARGEST:
        raise Unsuitable("no profile, or a large one")
    space, transform = _transform(profile)
    if transform is not None and space != _space(image.mode):
        raise Unsuitable(f"a profile of {space} in a picture of mode {image.mode}")
    return transform


def _space(mode: str) -> str:
    """The colour space of a mode, as a profile names it."""
    if mode in GREY or mode.startswith("I;16"):
        return "GRAY"
    return "Lab" if mode == "LAB" else "CMYK" if mode == "CMYK" else "RGB"


@lru_cache(maxsize=4)  # most catalogs have one or two; each takes up to a few MB
def _transform(profile: bytes) -> tuple[str, ImageCmsTransform | None]:
    """The colour space of a profile, and its transform to sRGB, None if it changes nothing."""
    from PIL import ImageCms  # a few milliseconds, and not in each build of Pillow

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        transform = ImageCms.ImageCmsTransform(source, _srgb(), MODES[space], "RGB")
        return space, None if _is_same(transform) else transform
    except MemoryError:
        raise
    except Exception as error:  # OSError, KeyError; ImportError where Pillow lacks littlecms2
        raise Unsuitable(str(error)) from None


@cache
def _srgb() -> ImageCmsProfile:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _is_same(transform: ImageCmsTransform) -> bool:
    """Whether the transform leaves colours as they are, but for rounding."""
    if transform.input_mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 256 if transform.input_mode == "L" else 9).round()
    if transform.input_mode == "L":
        grid = levels.astype(np.uint8)[None]  # (1, 256)
    else:
        axes = np.meshgrid(levels, levels, levels)
        grid = np.stack(axes, -1).astype(np.uint8).reshape(1, -1, 3)  # (1, 729, 3)
    before = Image.fromarray(grid)
    after = np.asarray(transform.apply(before), int)
    return bool(np.abs(after - np.asarray(before.convert("RGB"), int)).max() <= SAME)

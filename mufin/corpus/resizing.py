"""Antialiased bicubic resizing as Pillow's, by the SIMD instructions of the processor.

Pillow's own loop takes longer than the decoder of a JPEG. The package cykooz-resizer has the same
filter (Catmull-Rom, widened where a picture becomes smaller) with weights of 16 bits: a value may
differ from Pillow's by one level of 255, and by two at a few hard edges. All sets of instructions
give the same values.
"""

from __future__ import annotations

from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

BICUBIC = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.catmull_rom))
# Values are rounded and clipped between the two directions, so their order shows at hard edges:
# rows first, then columns. Pillow 13 takes the columns first of a picture that is twice as high as
# wide; such a picture is left to Pillow.
HIGHEST = 1.9  # height / width
SMALL = 2**14  # pixels; below, Pillow takes as long as the calls of two libraries


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture in another size; each of its bands, in mode RGB or CMYK, by itself."""
    if image.width * image.height < SMALL or image.height > HIGHEST * image.width:
        return image.resize((width, height), Image.Resampling.BICUBIC)
    return _one_side(_one_side(image, width, image.height), width, height)


def _one_side(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture in another size, of which one side at least is as before."""
    if image.size == (width, height):
        return image
    target = Image.new(image.mode, (width, height))
    Resizer().resize_pil(image, target, BICUBIC)
    return target

"""Picture bytes to square uint8 arrays: RGB, aspect ratio kept, centred on white.

The image encoder E_V (MUFIN Sec. 3; App. D) applies its own mean and standard deviation later.

Pictures come from strangers: `mufin.corpus.decoding` calls `decode` in processes with bounds on
memory and time.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import AvifImagePlugin, Image, ImageOps, PngImagePlugin

# Pillow imports all of its plugins where one that is asked for is missing; with these none is.
from PIL import TiffImagePlugin, WebPImagePlugin  # noqa: F401 # isort: skip

from mufin.corpus import colours, cut_jpeg
from mufin.corpus.formats import format_of, refusal
from mufin.corpus.resizing import resized
from mufin.corpus.whole_jpeg import whole

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

# Pillow warns about faulty files; here a faulty picture is counted by its reason instead.
warnings.filterwarnings("ignore", module="PIL")
PngImagePlugin.MAX_TEXT_CHUNK = (
    colours.LARGEST
)  # bytes of a profile; else PNG is refused beyond 1 MB
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # by default one thread, with its stack, per core

MEMORY = 2**30  # bytes that a process may use for one picture
STRIP = 2**20  # pixels that are converted at once

TOO_MANY_PIXELS, TOO_MUCH_MEMORY = "too many pixels", "too much memory"
BROKEN = "corrupt or truncated"

# What `decode` notes of pictures that it decodes
CONVERTED = "converted from another colour space"
PROFILE_IGNORED = "colour profile broken or unsuitable"
BROKEN_EXIF = "broken EXIF"
NO_END = "without end marker"

OWN = 2**26  # of MEMORY: Python, numpy and Pillow themselves
# Bytes per pixel that a decoder of whole frames holds beside Pillow's pixels, measured on 12 to 50
# megapixels (most: WebP 11 to 15, AVIF 5 to 8, HEIC 4 to 5). This is an estimate; the bound on the
# memory of the process is exact.
WHOLE_FRAMES = {"WEBP": 12, "AVIF": 8, "HEIF": 8}
COEFFICIENT = 2  # bytes; of a progressive JPEG, the decoder keeps all coefficients
WHOLE = 2**26  # pixels; a JPEG that has more is decoded at a fraction of its size


def decode(content: bytes, size: int, notes: set[str] | None = None) -> np.ndarray | str:
    """(size, size, 3) uint8, or the reason why these bytes give no picture; never raises.

    EXIF rotation is applied, transparent pixels become white, 16-bit grey is scaled to 8 bits, and
    an animation gives its first frame. Colours of a profile (ICC) become those of sRGB; a broken
    profile, broken EXIF and the lack of the end marker of a JPEG are passed over. What of these was
    done is added to `notes`.
    """
    if reason := refusal(content):
        return reason
    done: set[str] = set()
    answer = _decoded(content, size, done)
    if isinstance(answer, str):
        return answer
    if notes is not None:
        notes |= done
    return answer


def _decoded(content: bytes, size: int, notes: set[str]) -> np.ndarray | str:
    """`decode` for bytes that begin as a picture."""
    components = 0
    try:
        with _opened(content, format_of(content)) as image:
            if min(image.size) < 1:
                return "no pixels"
            before = _coefficients(image)
            is_jpeg = image.format == "JPEG"
            is_large = image.width * image.height > WHOLE
            if is_jpeg:
                components = len(image.layer)  # type: ignore[attr-defined]
                if is_large:
                    image.draft(None, _draft_size(image.size, size))
            if OWN + len(content) + before + _cost(image) > MEMORY:
                return TOO_MANY_PIXELS
            if is_jpeg and not is_large and (picture := _whole(content, image, notes)):
                return _canvas(picture, size)
            image.load()
            _turn(image, notes)
            return _canvas(_rgb(image, _conversion(image, notes)), size)
    except Image.DecompressionBombError:
        return TOO_MANY_PIXELS
    except MemoryError:
        return TOO_MUCH_MEMORY
    except Exception as error:  # Pillow's decoders raise many classes, also struct.error
        if "out of memory" in str(error):
            return TOO_MUCH_MEMORY
    return _decoded_with_end(content, size, components, notes)


def _whole(content: bytes, image: Image.Image, notes: set[str]) -> Image.Image | None:
    """The pixels of a JPEG, where nothing has to be mended or converted."""
    return whole(content, image) if _conversion(image, notes) is None else None


def _decoded_with_end(
    content: bytes, size: int, components: int, notes: set[str]
) -> np.ndarray | str:
    """The pixels of a JPEG of so many colour components that lacks its end, but little else."""
    if not components or not (pair := cut_jpeg.completions(content, components)):
        return BROKEN
    answer, other = (_decoded(completed, size, notes) for completed in pair)
    if isinstance(answer, str) or isinstance(other, str):
        return BROKEN
    if not cut_jpeg.nearly_whole(answer, other):
        return BROKEN
    notes.add(NO_END)
    return answer


def _turn(image: Image.Image, notes: set[str]) -> None:
    """Apply the rotation in EXIF; what is broken there does not touch the pixels."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # SyntaxError, struct.error and others, also after the rotation
        notes.add(BROKEN_EXIF)


def _conversion(image: Image.Image, notes: set[str]) -> ImageCmsTransform | None:
    """What converts the colours to sRGB, None if nothing has to or can."""
    try:
        if transform := colours.conversion(image):
            notes.add(CONVERTED)
        return transform
    except colours.Unsuitable:
        notes.add(PROFILE_IGNORED)
        return None


def _opened(content: bytes, name: str) -> Image.Image:
    """The picture, its header read by Pillow's plugin `name` alone."""
    if name == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    # Pillow refuses at twice this number. WebP's decoder takes its memory when it is opened; for
    # the others `_cost` decides, as a JPEG of any extent may be decoded at an eighth of it.
    whole = WHOLE_FRAMES.get(name)
    Image.MAX_IMAGE_PIXELS = MEMORY // (whole + 4) // 2 if whole else None
    return Image.open(io.BytesIO(content), formats=[name])


def _coefficients(image: Image.Image) -> int:
    """Bytes of the coefficients that the decoder of a progressive JPEG keeps; else 0."""
    if "progressive" not in image.info:
        return 0
    factors = [(h, v) for _, h, v, _ in image.layer]  # type: ignore[attr-defined]
    widest, highest = (max(column) for column in zip(*factors))
    share = sum(h * v for h, v in factors) / (widest * highest)
    return int(image.width * image.height * share * COEFFICIENT)


def _cost(image: Image.Image) -> int:
    """Bytes of memory that decoding takes at its peak, by the header."""
    stored = 1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4
    converted = 0 if _is_rgb(image) else 4
    decoder = WHOLE_FRAMES.get(image.format or "", 0)
    return image.width * image.height * (decoder + stored + converted)


def _draft_size(size: tuple[int, int], target: int) -> tuple[int, int]:
    """The (width, height) to request from Pillow's draft mode for a large JPEG of this size.

    Draft mode decodes a JPEG at 1/2, 1/4 or 1/8 of its size, at a fraction of the cost, and gives
    at least the size requested. Both sides keep at least twice their final length, which the
    antialiased resize in `_canvas` needs.
    """
    ratio = max(size) / target
    if ratio <= 2:
        return size
    width, height = (max(int(side / ratio * 2), 1) for side in size)
    return width, height


def _is_rgb(image: Image.Image) -> bool:
    return image.mode == "RGB" and "transparency" not in image.info


def _rgb(image: Image.Image, transform: ImageCmsTransform | None = None) -> Image.Image:
    """The picture in mode RGB, its colours converted by `transform`, if any.

    A large one is converted in strips: its copies in between would take several times its memory.
    """
    if _is_rgb(image):
        return image if transform is None else transform.apply(image, image)
    rows = max(STRIP // image.width, 1)
    grey = image.mode.startswith("I") or image.mode == "F"  # integer or float grey
    # 16-bit grey has mode I;16 or I. Mode I also holds 8-bit grey, so there the largest value
    # decides.
    deep = image.mode.startswith("I;16") or image.mode == "I" and _largest(image) > 255
    out = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        if grey:
            strip = _shallow(strip, 65535.0 if deep else 255.0)
        out.paste(_on_white(strip, transform), (0, top))
    return out


def _largest(image: Image.Image) -> float:
    _, largest = image.getextrema()
    assert not isinstance(largest, tuple)  # a pair per band where there are several
    return largest


def _shallow(image: Image.Image, top: float) -> Image.Image:
    """Integer or float grey, 0 to `top`, in mode L."""
    shallow = np.clip(np.asarray(image, np.float64) * (255.0 / top), 0, 255).astype(np.uint8)
    return Image.fromarray(shallow)


def _on_white(image: Image.Image, transform: ImageCmsTransform | None) -> Image.Image:
    """Colours, grey or a palette, with transparency or without, in mode RGB."""
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return _opaque(image, transform)
    layer = image.convert("RGBA")
    if transform is not None:
        alpha = layer.getchannel("A")
        layer = _opaque(image.convert("LA") if transform.input_mode == "L" else layer, transform)
        layer.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer).convert("RGB")


def _opaque(image: Image.Image, transform: ImageCmsTransform | None) -> Image.Image:
    """The colours alone, in mode RGB."""
    if transform is None:
        return image.convert("RGB")
    return transform.apply(image.convert(transform.input_mode))


def _canvas(image: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the picture, resized to fit, in the middle of a white square."""
    scale = size / max(image.size)
    # A long, thin picture keeps at least one pixel of its shorter side.
    width, height = (max(1, min(size, round(side * scale))) for side in image.size)
    canvas = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    bands = np.asarray(resized(image, width, height))  # three, or four as from `whole`
    for band in range(3):  # one by one: numpy copies single bytes far faster than runs of three
        canvas[top : top + height, left : left + width, band] = bands[..., band]
    return canvas

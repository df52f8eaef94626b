"""Bytes of every kind of picture give the right pixels, or the reason why there are none."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from mufin.corpus import pixels
from mufin.corpus.pixels import decode
from mufin.corpus.resizing import SMALL
from tests.support.hostile_pictures import GREY, deep_png, encoded, png, resized_jpeg, scene, zeros

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def reference(image: Image.Image, size: int) -> np.ndarray:
    """What decode should give, in plain Pillow: the whole picture, contained, pasted on white."""
    small = ImageOps.contain(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), WHITE)
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    return np.asarray(square)


@pytest.mark.parametrize(
    "width, height", [(48, 48), (96, 48), (48, 96), (640, 480), (30, 20), (500, 124)]
)
def test_a_lossless_picture_is_centred_on_a_white_square(width, height):
    image = scene(width, height)
    ours = decode(encoded(image, "PNG"), 48)
    assert ours.shape == (48, 48, 3) and ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - reference(image, 48)).max() <= 1
    assert width * height >= SMALL or np.array_equal(ours, reference(image, 48))


SIZES = [(1600, 1200), (900, 2400), (4000, 300), (97, 97), (60, 40)]


@pytest.mark.parametrize("width, height", SIZES)
@pytest.mark.parametrize("size", [32, 128])
def test_a_jpeg_is_within_one_level_of_plain_pillow(width, height, size):
    content = encoded(scene(width, height), "JPEG", quality=90)
    whole = reference(Image.open(io.BytesIO(content)), size).astype(int)
    assert np.abs(decode(content, size) - whole).max() <= 1


@pytest.mark.parametrize("width, height", SIZES)
@pytest.mark.parametrize("size", [32, 128])
def test_draft_mode_is_close_to_the_whole_jpeg_decoded(width, height, size, monkeypatch):
    content = encoded(scene(width, height), "JPEG", quality=90)
    monkeypatch.setattr(pixels, "WHOLE", 0)
    ours, whole = (
        decode(content, size).astype(int),
        reference(Image.open(io.BytesIO(content)), size).astype(int),
    )
    assert np.abs(ours - whole).mean() < 1.0
    assert np.abs(ours - whole).max() <= 40  # only at hard edges


def test_draft_mode_leaves_twice_the_target():
    for width, height in ((1600, 1200), (2000, 10), (5000, 4999), (257, 255)):
        image = Image.open(io.BytesIO(encoded(Image.new("L", (width, height)), "JPEG")))
        image.draft(None, pixels._draft_size(image.size, 128))
        assert max(image.size) >= 256


@pytest.mark.parametrize(
    "content",
    [b"\0" * 100, b"a title", b"GIF", b"BM, a title", b"RIFF\0\0\0\0WAVE"],
)
def test_bytes_of_no_picture_give_a_reason(content):
    assert decode(content, 32) == "not a picture"


@pytest.mark.parametrize("content", [b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"II*\0"])
def test_the_first_bytes_alone_are_a_broken_picture(content):
    assert decode(content, 32) == "corrupt or truncated"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_truncated_picture_gives_a_reason(form):
    content = encoded(scene(200, 150), form)
    assert isinstance(decode(content, 32), np.ndarray)
    for part in (2, 4):
        assert decode(content[: len(content) * (part - 1) // part], 32) == "corrupt or truncated"
    assert decode(encoded(scene(200, 150), "JPEG")[:-400], 32) == "corrupt or truncated"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF", "BMP"])
def test_broken_bytes_give_a_picture_or_a_reason(form):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    options = {"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}
    content = encoded(scene(40, 30), form, **options)
    rng, reasons = np.random.default_rng(0), set()
    for _ in range(250):
        broken = np.frombuffer(content, np.uint8).copy()
        end = min(len(broken), int(rng.choice([60, 300, len(broken)])))
        broken[rng.integers(0, end, rng.integers(1, 12))] = rng.integers(0, 256)
        out = decode(
            broken[: rng.integers(1, len(broken) + 1)].tobytes()
            if rng.random() < 0.2
            else broken.tobytes(),
            16,
        )
        if isinstance(out, str):
            reasons.add(out)
        else:
            assert out.shape == (16, 16, 3) and out.dtype == np.uint8
    assert reasons <= {"corrupt or truncated", "not a picture", "too many pixels", "no pixels"} | {
        "too much memory"
    }


def test_any_error_in_pillow_is_a_reason(monkeypatch):
    """A broken AVIF raises RuntimeError, say."""
    content = encoded(scene(20, 20), "PNG")
    for error in (struct.error, RuntimeError, zlib.error, RecursionError):

        def breaks(*_, error=error):
            raise error("broken")

        monkeypatch.setattr(PngImageFile, "load", breaks)
        assert decode(content, 16) == "corrupt or truncated"


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (40, 20), colour) for colour in (RED, BLUE, WHITE)]
    for form in ("GIF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        ours = decode(
            encoded(frames[0], form, save_all=True, append_images=frames[1:], **options), 20
        )
        assert (ours[5:15] == RED).all() and (ours[:5] == 255).all() and (ours[15:] == 255).all()


def half_transparent(mode: str) -> tuple[Image.Image, dict]:
    """Left half black, right half transparent, in a mode; and how to save it."""
    if mode == "P":
        image = Image.new("P", (32, 32), 0)
        image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
        image.paste(1, (16, 0, 32, 32))
        return image, {"transparency": 1}
    if mode in ("RGB", "L"):
        image = Image.new(mode, (32, 32), "black")
        image.paste(RED if mode == "RGB" else 90, (16, 0, 32, 32))
        return image, {"transparency": RED if mode == "RGB" else 90}
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 255))
    image.paste((9, 80, 200, 0), (16, 0, 32, 32))
    return image.convert(mode), {}


@pytest.mark.parametrize(
    "mode, form",
    [("P", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("LA", "PNG"), ("RGB", "PNG"), ("L", "PNG")],
)
def test_what_is_transparent_becomes_white(mode, form):
    image, options = half_transparent(mode)
    ours = decode(encoded(image, form, **options), 32)
    assert (ours[:, :16] == 0).all() and (ours[:, 16:] == 255).all()


def test_what_is_half_transparent_is_blended_with_white():
    ours = decode(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG"), 8)
    assert np.abs(ours.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("mode", ["P", "1", "L", "LA"])
def test_palette_and_grey_pictures_become_rgb(mode):
    image = scene(60, 40).convert(mode)
    ours = decode(encoded(image, "PNG"), 30)
    assert np.array_equal(ours, reference(image.convert("RGB"), 30))
    assert mode == "P" or (np.ptp(ours, axis=2) == 0).all()


def test_a_cmyk_jpeg_keeps_its_rgb_colours():
    image = scene(90, 60)
    ours = decode(encoded(image.convert("CMYK"), "JPEG", quality=95), 30)
    assert np.abs(ours.astype(int) - reference(image, 30).astype(int)).mean() < 3


@pytest.mark.parametrize("top", [65535, 255])
def test_a_16_bit_png_is_scaled_to_8_bits(top):
    values = np.linspace(0, top, 32 * 32).reshape(32, 32).astype(np.uint16)
    ours = decode(encoded(Image.fromarray(values), "PNG"), 32)
    assert (
        np.abs(ours[..., 0].astype(int) - values / 257).max() <= 1
        and (np.ptp(ours, axis=2) == 0).all()
    )


def test_rgb_of_16_bits_is_read():
    """Pillow cannot write these: a PNG by hand."""
    rows = b"".join(b"\0" + b"\xff\xff\x80\x00\x00\x00" * 4 for _ in range(4))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    assert (decode(content, 4) == (255, 128, 0)).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation, form):
    image = scene(80, 40)
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = image.transpose(stored[orientation]) if orientation in stored else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    ours = decode(encoded(turned, form, exif=exif, quality=95), 32).astype(int)
    assert np.abs(ours - reference(image, 32).astype(int)).mean() < 4
    assert (ours[:8] == 255).all() and (ours[24:] == 255).all()


@pytest.mark.parametrize("width, height", [(20000, 20000), (2**29, 1)])
def test_a_bomb_is_refused_without_being_decoded(width, height, monkeypatch):
    content = png(width, height, 1, GREY, zeros(height * (1 + (width + 7) // 8)))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert len(content) < 2**20 and decode(content, 32) == "too many pixels"


def refused_above(content: bytes, least: int, most: int) -> int:
    """The number of bytes below which MEMORY has no room for this picture."""
    while least < most:
        middle = (least + most) // 2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pixels, "MEMORY", middle)
            fits = isinstance(decode(content, 32), np.ndarray)
        least, most = (least, middle) if fits else (middle + 1, most)
    return least


@pytest.mark.parametrize(
    "form, options, bytes_per_pixel",
    [
        ("PNG", {}, 4),
        ("WEBP", {}, 16),
        ("AVIF", {"speed": 10}, 12),
        ("BMP", {}, 4),
        ("JPEG", {}, 4),
        ("JPEG", {"progressive": True, "subsampling": "4:4:4"}, 4 + 6),
        ("JPEG", {"progressive": True, "subsampling": "4:2:0"}, 4 + 3),
    ],
)
def test_the_bound_counts_what_decoding_costs(form, options, bytes_per_pixel, monkeypatch):
    content = encoded(scene(800, 800), form, **options)
    needed = pixels.OWN + len(content) + 800 * 800 * bytes_per_pixel
    assert refused_above(content, pixels.OWN, 2**28) == pytest.approx(needed, abs=2)
    if form == "JPEG":  # draft mode decodes it at an eighth of its size
        monkeypatch.setattr(pixels, "WHOLE", 800 * 800 - 1)
        needed -= 800 * 800 * (4 - 4 / 64)
        assert refused_above(content, pixels.OWN, 2**28) == pytest.approx(needed, abs=2)


@pytest.mark.parametrize("mode, bytes_per_pixel", [("RGBA", 8), ("P", 5), ("L", 5), ("LA", 8)])
def test_the_bound_counts_the_copy_in_rgb(mode, bytes_per_pixel):
    content = encoded(scene(500, 400).convert(mode), "PNG")
    needed = pixels.OWN + len(content) + 500 * 400 * bytes_per_pixel
    assert refused_above(content, pixels.OWN, 2**28) == needed
    deep = deep_png(500, 400)
    assert refused_above(deep, pixels.OWN, 2**28) == pixels.OWN + len(deep) + 500 * 400 * 6


def test_no_memory_is_a_reason_of_its_own(monkeypatch):
    content = encoded(scene(20, 20), "TIFF")
    for error in (MemoryError(), OSError("out of memory when reading image file")):

        def fails(*_, error=error):
            raise error

        monkeypatch.setattr(TiffImageFile, "load", fails)
        assert decode(content, 16) == "too much memory"


def test_a_jpeg_is_not_bound_by_its_extent():
    assert isinstance(decode(resized_jpeg(14000, 14000), 32), np.ndarray)
    assert decode(resized_jpeg(20000, 20000, progressive=True), 32) == "too many pixels"


KINDS = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("TIFF", mode) for mode in ("CMYK", "I", "I;16", "I;16B", "F", "YCbCr", "LAB")),
    *(("GIF", mode) for mode in ("L", "P")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
]


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode in ("RGBA", "LA"):
        image.putalpha(scene(*image.size, 1).convert("L"))
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    if not mode.startswith("I;16") and mode != "F":
        return image.convert(mode)
    grey, types = np.asarray(image.convert("L"), float), {"I;16": "<u2", "I;16B": ">u2", "F": "<f4"}
    return Image.fromarray((grey * (1 if mode == "F" else 250)).astype(types[mode]))


@pytest.mark.parametrize("form, mode", KINDS)
def test_strips_give_the_pixels_of_the_whole(form, mode, monkeypatch):
    options = {"transparency": 3} if mode in ("L", "P") and form in ("PNG", "GIF") else {}
    content = encoded(in_mode(scene(70, 90), mode), form, **options)
    whole = decode(content, 60)
    monkeypatch.setattr(pixels, "STRIP", 70 * 13)
    assert np.array_equal(decode(content, 60), whole)
    assert np.ptp(whole[:, 20:40]) > 100


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("width, height", [(1, 1), (1, 3000), (3000, 1), (2, 9000)])
def test_a_line_of_pixels_stays_a_line(width, height, form):
    ours = decode(encoded(Image.new("RGB", (width, height), (0, 0, 0)), form), 32)
    dark = np.argwhere((ours < 40).all(2))
    extent = dark.max(0) - dark.min(0) + 1
    assert extent.tolist() == [32 if height >= width else 1, 32 if width >= height else 1]
    assert (ours == 255).all(2).sum() == 32 * 32 - len(dark)
    assert abs(dark.mean(0) - 15.5).max() <= 0.5


# What is not whole, and yet all there


FORMS = [{}, {"progressive": True}, {"optimize": True}, {"quality": 95, "subsampling": 0}]


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_jpeg_without_its_end_marker_keeps_its_pixels(options, mode, cut):
    for side in (16, 75, 600):
        content, notes = encoded(scene(side, side).convert(mode), "JPEG", **options), set()
        assert content.endswith(b"\xff\xd9")
        assert np.array_equal(decode(content[:-cut], 64, notes), decode(content, 64))
        # Pillow may be ready with the last pixel, without a look at what comes after it.
        assert notes == {"without end marker"} or not notes and "subsampling" in options
        assert isinstance(decode(content, 64, whole := set()), np.ndarray) and whole == set()


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_jpeg_that_lacks_pixels_is_truncated(options):
    content = encoded(scene(200, 150), "JPEG", **options)
    for end in (len(content) * part // 100 for part in (30, 50, 75, 90, 95)):
        notes: set[str] = set()
        assert decode(content[:end], 64, notes) == "corrupt or truncated" and notes == set()
    whole = decode(content, 64).astype(int)
    for cut in range(3, 60):  # a few bytes less cost a few pixels, or the picture
        ours = decode(content[:-cut], 64)
        assert isinstance(ours, str) or (ours != whole).any(-1).mean() < 0.02


def test_a_progressive_jpeg_is_not_taken_for_whole_after_an_early_scan():
    content = encoded(scene(200, 150), "JPEG", progressive=True)
    scans = [i for i in range(len(content)) if content[i : i + 2] == b"\xff\xda"]
    assert len(scans) >= 6
    for start in scans[1:]:  # all that comes before is there; Pillow would show it, less sharp
        end = content.rfind(b"\xff\xc4", 0, start)
        assert decode(content[:end], 64) == "corrupt or truncated"
        assert decode(content[:start], 64) == "corrupt or truncated"


def test_a_thumbnail_in_exif_is_no_scan_of_the_picture():
    exif = Image.Exif()
    exif[0x010E] = encoded(scene(16, 16), "JPEG").decode("latin-1")
    content = encoded(scene(200, 150), "JPEG", progressive=True, exif=exif)
    assert isinstance(decode(content[:-1], 64), np.ndarray)
    first = content.index(b"\xff\xc2")
    end = content.index(b"\xff\xda", content.index(b"\xff\xda", first) + 2)
    assert decode(content[:end], 64) == "corrupt or truncated"


BROKEN_EXIF = [
    b"no EXIF at all",
    b"MM\0*\0\0\0\x08\0\1\1\x12\0\7\0\0\0\4abcd\0\0\0\0",  # an orientation that is no number
    b"II*\0\x08\0\0\0\5\0\x12\1\3\0\1\0",  # cut in the first entry
    b"II*\0\xff\xff\xff\xff",
]


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_broken_exif_does_not_cost_the_picture(form, exif):
    image, options = scene(60, 40), {"lossless": True} if form == "WEBP" else {"quality": 95}
    plain, notes = decode(encoded(image, form, **options), 32), set()
    assert np.array_equal(decode(encoded(image, form, exif=exif, **options), 32, notes), plain)
    assert notes <= {"broken EXIF"}


def test_broken_exif_is_noted():
    for form in ("PNG", "WEBP"):
        notes: set[str] = set()
        decode(encoded(scene(60, 40), form, exif=BROKEN_EXIF[0]), 32, notes)
        assert notes == {"broken EXIF"}


def test_a_rotation_is_kept_when_the_rest_of_exif_is_broken(monkeypatch):
    """Pillow turns the picture, and then cannot write the EXIF that is left."""
    image, exif = scene(60, 40), Image.Exif()
    exif[0x0112] = 6
    content = encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)

    def fails(*_):
        raise struct.error("broken")

    monkeypatch.setattr(Image.Exif, "tobytes", fails)
    notes: set[str] = set()
    assert np.array_equal(decode(content, 32, notes), reference(image, 32))
    assert notes == {"broken EXIF"}

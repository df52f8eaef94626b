"""Pictures that attack their decoder: small files that claim or cost much, and broken ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth picture with edges in it, as photographs are."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    image = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    image[height // 3 : height // 2, width // 4 : width // 2] = (20, 200, 90)
    return Image.fromarray(image)


# PNG

GREY, COLOUR = 0, 2  # colour types


def png(width: int, height: int, bits: int, colour: int, data: bytes, *extra: bytes) -> bytes:
    """A PNG with this header, compressed rows and further chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    rest = b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + rest


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def zeros(count: int) -> bytes:
    """`count` zero bytes, compressed to about a thousandth.

    After a full flush, equal bytes are compressed to equal bytes: one block stands for all.
    """
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(count % 2**20)) + packer.flush()
    checksum = struct.pack(">HH", count % 65521, 1)  # Adler-32 of zeros
    return b"\x78\x01" + block * (count >> 20) + rest + checksum


def deep_png(width: int, height: int) -> bytes:
    """All rows of a 16-bit grey PNG; 24000 x 24000 take 1 MB."""
    return png(width, height, 16, GREY, zeros(height * (1 + 2 * width)))


def png_with(name: bytes, data: bytes) -> bytes:
    return png(4, 4, 8, GREY, zeros(20), chunk(name, data))


# JPEG


def many_scans(image: Image.Image, scans: int) -> bytes:
    """A progressive JPEG whose last scan, a refinement of all pixels, comes `scans` times."""
    content = encoded(image, "JPEG", progressive=True, quality=95)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + b"\xff\xd9"


def resized_jpeg(width: int, height: int, **options) -> bytes:
    """A JPEG of 16 x 16 pixels whose header claims another size."""
    content = bytearray(encoded(scene(16, 16), "JPEG", **options))
    start = content.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(content)


# WebP


def webp(name: bytes, data: bytes) -> bytes:
    body = b"WEBP" + name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossless_webp(width: int, height: int) -> bytes:
    """34 bytes that claim this size, at most 16384 x 16384, of one colour."""
    bits = (width - 1) | (height - 1) << 14
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", bits) + b"\x88\x88\x08\x00\x00\x00\x00\x00")


def canvas_webp(width: int, height: int) -> bytes:
    """An animation on a canvas of this size, with one small frame."""
    frame = encoded(scene(16, 16), "WEBP")[12:]
    canvas = struct.pack("<I", 2) + (width - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + canvas + (height - 1).to_bytes(3, "little")
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    one = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4) + frame
    body += b"ANMF" + struct.pack("<I", len(one)) + one
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


# GIF, BMP


def gif(width: int, height: int) -> bytes:
    """A GIF of this size with the pixels of a small one."""
    content = bytearray(encoded(scene(16, 16).convert("P"), "GIF"))
    content[6:10] = struct.pack("<HH", width, height)
    start = content.index(b",\0\0\0\0\x10\0\x10\0")
    content[start + 5 : start + 9] = struct.pack("<HH", width, height)
    return bytes(content)


def bmp(width: int, height: int, compression: int, data: bytes) -> bytes:
    """A BMP of 8 bits per pixel; compression 1 is run-length encoding."""
    palette = bytes(1024)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0
    )
    start = 14 + len(info) + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    return head + info + palette + data


# TIFF


def tiff(entries: list[tuple[int, int, int, int]], following: int, data: bytes = b"") -> bytes:
    """A TIFF with one directory of (tag, type, count, value), the offset of the next, and data."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    directory = struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8) + directory + data


def deflated_tiff(width: int, height: int, data: bytes, following: int = 0) -> bytes:
    """An 8-bit grey TIFF in one deflated strip."""
    values = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 273: 0, 277: 1, 278: height}
    values[279] = len(data)
    start = 8 + 2 + 12 * len(values) + 4
    values[273] = start
    return tiff([(tag, 4, 1, value) for tag, value in values.items()], following, data)


# Others


def refused() -> dict[str, bytes]:
    """{reason: bytes} of what is no picture that is read."""
    return {
        "EPS is not read": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage",
        "PDF is not read": b"%PDF-1.7\n1 0 obj",
        "SVG is not read": b'<?xml version="1.0"?>\n<!-- a --><svg xmlns="x" width="9"/>',
        "HTML instead of a picture": b"\xef\xbb\xbf\n <!DOCTYPE html><body><svg></svg>",
        "JPEG 2000 is not read": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30),
        "JPEG XL is not read": b"\xff\x0a" + bytes(30),
        "ICO is not read": b"\0\0\1\0\1\0" + bytes(30),
        "PSD is not read": b"8BPS\0\1" + bytes(30),
        "ZIP is not read": b"PK\3\4" + bytes(30),
        "GZIP is not read": b"\x1f\x8b\x08" + bytes(30),
        "video is not read": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42",
        "not a picture": b"BMW 320i, 2019, blue, one owner, full service history",
        "empty": b"",
    }


@cache
def bombs() -> dict[str, tuple[bytes, set[str]]]:
    """{name: (bytes, the reasons that are right)}: small files that claim or cost much."""
    pixels, broken = {"too many pixels"}, {"corrupt or truncated"}
    fit = {"", "corrupt or truncated"}  # decoded within the bounds, or seen to be broken
    small, exif = encoded(scene(40, 30), "TIFF"), Image.Exif()
    exif[0x010E] = "x" * 60_000
    looping = encoded(scene(40, 30), "JPEG", exif=exif)
    return {
        "webp of 34 bytes": (lossless_webp(16384, 16384), pixels),
        "webp canvas": (canvas_webp(16384, 16384), pixels),
        "webp that fits": (lossless_webp(7000, 7000), {""}),
        "png of 16 bits": (deep_png(15000, 15000), pixels),
        "png header": (png(2**31 - 1, 2**31 - 1, 8, COLOUR, b""), pixels),
        "png line": (png(2**31 - 1, 1, 1, GREY, b""), pixels),
        "png profile": (png_with(b"iCCP", b"p\0\0" + zeros(2**28)), fit),
        "png text": (png_with(b"zTXt", b"p\0\0" + zeros(2**28)), fit),
        "png exif": (png_with(b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 2**22), fit),
        "jpeg of 900 MP": (resized_jpeg(30000, 30000), fit),
        "progressive jpeg": (resized_jpeg(65500, 65500, progressive=True), pixels),
        "jpeg exif": (looping.replace(b"MM\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xf0"), fit),
        "gif": (gif(65535, 65535), pixels),
        "bmp": (bmp(2**31 - 1, 2**31 - 1, 1, b"\0\1"), pixels),
        "bmp runs": (bmp(9000, 9000, 1, b"\0\1"), fit),
        "bmp steps": (bmp(6000, 6000, 1, b"\0\2\xff\xff" * 50_000), fit),
        "tiff": (deflated_tiff(2**30, 2**30, zeros(99)), pixels),
        "tiff strip": (
            deflated_tiff(15000, 15000, zeros(15000**2)),
            pixels | {"", "too much memory"},
        ),
        "tiff circle": (deflated_tiff(9, 9, zeros(81), following=8), fit),
        "tiff counts": (tiff([(256 + i, 4, 2**32 - 1, 8) for i in range(500)], 8), broken),
        "tiff cut": (small[: len(small) // 3], broken),
    }


def mutated(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(format, bytes): valid pictures of each format with flipped bytes, or cut off."""
    rng, picture = np.random.default_rng(seed), scene(160, 120)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    valid = {
        "JPEG": encoded(picture, "JPEG", exif=exif),
        "progressive JPEG": encoded(picture, "JPEG", progressive=True),
        "MPO": encoded(picture, "MPO", save_all=True, append_images=[scene(80, 60)]),
        "PNG": encoded(picture, "PNG", exif=exif),
        "GIF": encoded(picture, "GIF", save_all=True, append_images=[scene(160, 120, 1)]),
        "WEBP": encoded(picture, "WEBP", exif=exif),
        "lossless WEBP": encoded(picture, "WEBP", lossless=True),
        "BMP": encoded(picture, "BMP"),
        "TIFF": encoded(picture, "TIFF", compression="tiff_lzw"),
        "tiled TIFF": encoded(picture, "TIFF", compression="tiff_deflate"),
        "AVIF": encoded(picture, "AVIF", speed=10),
        "HEIC": encoded(picture, "HEIF"),
    }
    for number in range(count):
        name = list(valid)[number % len(valid)]
        content = np.frombuffer(valid[name], np.uint8).copy()
        end = min(len(content), int(rng.choice([60, 400, len(content)])))
        places = rng.integers(12, end, rng.integers(1, 12))
        content[places] = rng.integers(0, 256, len(places))
        cut = rng.integers(12, len(content)) if rng.random() < 0.25 else len(content)
        yield name, content[:cut].tobytes()

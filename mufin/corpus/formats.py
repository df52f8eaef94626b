"""The picture formats that are read, by their first bytes: the one place that names them.

`Image.open` is always given the one format found here. Pillow would otherwise try all of its
plugins, one of which hands PostScript to Ghostscript.
"""

from __future__ import annotations

from importlib.util import find_spec

from mufin.corpus.reasons import NOT_PICTURE, NOT_READ

HEAD = 1024  # bytes that decide

# First bytes -> Pillow's name. MPO, two JPEGs in one file, is opened by the plugin of JPEG.
READ = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
}
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of its second header; "BM" starts a text too
# Brands in the first box of an ISO media file -> Pillow's name. A general brand such as mif1 may
# come first, then the others decide.
BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIF"
)
VIDEO_BRANDS = {b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"dash"}
VIDEO_BRANDS |= {b"qt  ", b"M4V ", b"3gp4", b"3gp5"}
# First bytes -> what it is, for the reason
REFUSED = {
    b"%!PS": "EPS",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"%PDF": "PDF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\1\0": "ICO",
    b"\0\0\2\0": "ICO",
    b"8BPS": "PSD",
    b"DDS ": "DDS",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"PK\3\4": "ZIP",
    b"\x1f\x8b": "GZIP",
    b"\x1aE\xdf\xa3": "video",  # Matroska, WebM
    b"\0\0\1\xba": "video",
    b"\0\0\1\xb3": "video",
}
NOTHING, HTML = "empty", "HTML instead of a picture"


def format_of(content: bytes) -> str:
    """Pillow's name of the format that these bytes begin as, '' if it is none of those here.

    The rest of the content may still be broken.
    """
    head = content[:HEAD]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    return next((BRANDS[brand] for brand in _brands(head) if brand in BRANDS), _named(head, READ))


def refusal(content: bytes) -> str:
    """'' if these bytes begin as a picture that is read, else the reason: one of a few, short.

    HEIC is read where the package pillow-heif is installed.
    """
    name = format_of(content)
    if name == "HEIF" and find_spec("pillow_heif") is None:
        return "HEIC is not read without pillow-heif"
    return "" if name else _reason(content[:HEAD])


def _reason(head: bytes) -> str:
    """Why these first bytes are not those of a picture that is read."""
    if not head:
        return NOTHING
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return HTML  # which may have an SVG in it
    if text.startswith((b"<svg", b"<!doctype", b"<?xml", b"<!--")):
        return f"SVG{NOT_READ}" if b"<svg" in text or b"<!doctype svg" in text else HTML
    name = _named(head, REFUSED)
    if head[8:12] == b"AVI " or not VIDEO_BRANDS.isdisjoint(_brands(head)):
        name = "video"
    return f"{name}{NOT_READ}" if name else NOT_PICTURE


def _named(head: bytes, names: dict[bytes, str]) -> str:
    return next((name for first, name in names.items() if head.startswith(first)), "")


def _brands(head: bytes) -> list[bytes]:
    """The brands of an ISO media file, the major one first; [] if it is none."""
    if head[4:8] != b"ftyp":
        return []
    box = head[8 : int.from_bytes(head[:4], "big")]
    return [box[:4], *(box[i : i + 4] for i in range(8, len(box), 4))]  # between: a version

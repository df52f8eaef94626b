"""Images of products in rows: URLs, paths, bytes and data: URLs, to references."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote_to_bytes

from mufin.catalogs.bad_rows import BadRow
from mufin.catalogs.cells import NULLS, items_of, nested, plain_cell, plain_items, text_of
from mufin.catalogs.notes import Notes
from mufin.corpus.fetch import is_url

Keep = Callable[[bytes], str]  # stores an image and returns its reference
SPECIAL = re.compile("//|data:", re.I).match  # images that are no plain references


def images_of(
    value: object,
    path: Path,
    number: int,
    column: str,
    notes: Notes | None = None,
    keep: Keep | None = None,
) -> list[str]:
    """References of images: URLs and paths of a list or of a cell (see `lists.parts`).

    An image given as bytes, as `{bytes, path}` (the form of Hugging Face's data sets) or as a data:
    URL goes to `keep`, which returns its reference; without `keep`, bytes raise BadRow. A data: URL
    that is broken is left out and counted. `//host/path` becomes `https://host/path`, and a path
    as Windows writes it, `a\\b.jpg`, becomes `a/b.jpg`.
    """
    return [_slashed(image) for image in _images(value, path, number, column, notes, keep)]


def _slashed(image: str) -> str:
    """The reference with slashes in place of backslashes; one that has a slash stays as it is.

    So `./a\\b.jpg` names a file whose own name has a backslash.
    """
    if "\\" not in image or "/" in image or is_url(image):
        return image
    return image.replace("\\", "/")


def _images(
    value: object,
    path: Path,
    number: int,
    column: str,
    notes: Notes | None,
    keep: Keep | None,
) -> list[str]:
    """As `images_of`, with paths as they are written."""
    if isinstance(value, str) and "//" not in value[:2] and "|//" not in value:
        if (plain := plain_cell(value)) is not None and "data:" not in value.lower():
            return plain
    if isinstance(value, dict) and not _stored(value):
        raise BadRow(
            f"{path} line {number} has an object in {column}; it must be a list, or a field of the "
            f"object, such as {column}.{next(iter(value), 'url')}"
        )
    items = (
        [value]
        if isinstance(value, bytes | dict)
        else items_of(value, path, number, column, "image")
    )
    plain = plain_items(items)
    if plain is not None and not any(map(SPECIAL, plain)):
        return plain
    out: list[str] = []
    for item in items:
        if isinstance(item, dict) and _stored(item):
            item = item.get("bytes") or item.get("path")
        if isinstance(item, bytes):
            if keep is None:
                raise BadRow(f"{path} line {number} has bytes in {column}; give URLs or paths")
            reference = _kept(item, keep, notes)
        elif isinstance(item, dict | list | tuple):
            raise nested(item, path, number, column)
        else:
            reference = _reference(text_of(item).strip(), column, notes, keep)
        if reference:
            out.append(reference)
    return out


def _stored(item: dict) -> bool:
    """Whether this is an image as Hugging Face's data sets store it."""
    return "bytes" in item and set(item) <= {"bytes", "path"}


def _reference(text: str, column: str, notes: Notes | None, keep: Keep | None) -> str:
    if text.startswith("//"):
        return "https:" + text
    if text[:5].lower() == "data:" and keep is not None:
        content = data_of(text)
        if content is None:
            if notes is not None:
                notes.add("broken data: URLs", text)
            return ""
        return _kept(content, keep, notes)
    if notes is not None and text in NULLS:
        notes.add(f"words for nothing in {column}, read as missing", text)
        return ""
    return text


def _kept(content: bytes, keep: Keep | None, notes: Notes | None) -> str:
    """The reference of an image given as bytes; '' if it is empty."""
    if not content:
        if notes is not None:
            notes.add("images of no bytes")
        return ""
    return keep(content) if keep else ""


def data_of(url: str) -> bytes | None:
    """The bytes of a data: URL, in base64 or with percent signs; None if it is broken."""
    head, comma, data = url.partition(",")
    if not comma:
        return None
    raw = unquote_to_bytes(data)
    if not head.lower().rstrip().endswith(";base64"):
        return raw
    raw = b"".join(raw.split()).replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except binascii.Error:
        return None

"""The pictures of MM-AmazonTitles-300K: URLs, or JPEGs in one file (see `xmlrepo`)."""

from __future__ import annotations

import base64
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mufin.catalogs.cells import text_of
from mufin.catalogs.text_files import lines_of
from mufin.corpus.formats import refusal
from mufin.errors import MufinError
from mufin.ragged import Lists

# The reference of a picture of images/img.bin is this prefix and the byte at which its line starts.
STORED = "img.bin#"

# From (title file, row, UID) to the references of the row's pictures.
Pictures = Callable[[str, int, str], list[str]]


def picture_urls(root: Path) -> Pictures | None:
    """The pictures in img.urls.txt, as URLs; None without that file."""
    places = (root / "img.urls.txt", root / "raw_data/img.urls.txt")
    path = next((p for p in places if p.exists()), None)
    if path is None:
        return None
    urls: dict[str, list[str]] = {}
    for number, line in lines_of(path):
        uid, tab, url = line.rstrip("\n").partition("\t")
        if not tab:
            raise MufinError(
                f"{path} line {number} has no tab between UID and URL; fetch the file again"
            )
        urls.setdefault(uid.strip(), []).append(text_of(url).strip())
    return lambda name, row, uid: _of_uids(urls, uid)


def stored_pictures(root: Path, sizes: dict[str, int]) -> Pictures | None:
    """The pictures in images/img.bin, as references that begin with STORED; None without that file.

    `images/<title file>.img.bin.npz` says which pictures a row has. The rows of a title file
    without one have the pictures whose line in img.bin begins with their UID.
    """
    path = root / "images/img.bin"
    if not path.exists():
        return None
    size = path.stat().st_size
    offsets = {
        name: _offsets(root / f"images/{name}.img.bin.npz", rows, size)
        for name, rows in sizes.items()
    }
    by_uid = _starts(path) if None in offsets.values() else {}

    def pictures(name: str, row: int, uid: str) -> list[str]:
        known = offsets[name]
        starts = _of_uids(by_uid, uid) if known is None else known[row].tolist()
        return [f"{STORED}{start}" for start in starts]

    return pictures


def _of_uids(pictures: dict[str, list], uid: str) -> list:
    """The pictures of a UID; a row of the release can have several UIDs, separated by commas."""
    if uid in pictures or "," not in uid:
        return pictures.get(uid, [])
    return [one for part in uid.split(",") for one in pictures.get(part.strip(), [])]


def _offsets(path: Path, rows: int, size: int) -> Lists | None:
    """(rows,) lists of the bytes at which a row's pictures start in img.bin; None without the file.

    The file is a SciPy CSR matrix. The columns of a row are its pictures in order, and a value is
    the byte offset plus one, since a sparse matrix does not store zeros. `rows` is the number of
    rows of the title file, `size` that of bytes in img.bin. Raises MufinError if the matrix does
    not fit them.
    """
    if not path.exists():
        return None
    try:
        _check_size(path, 64 * (rows + size) + 2**20)
        with np.load(path, allow_pickle=False) as file:
            if file["format"].item() not in (b"csr", "csr"):
                raise ValueError("not a CSR matrix")
            values, columns, starts = (file[name] for name in ("data", "indices", "indptr"))
        with np.errstate(invalid="ignore"):  # NaN becomes an integer out of range, refused below
            found = Lists(starts.astype(np.int64), values.astype(np.int64) - 1)
        steps = np.diff(found.offsets, prepend=0, append=len(values))
        if steps[0] or steps[-1] or steps.min() < 0 or len(columns) != len(values):
            raise ValueError("its arrays do not fit together")
    except Exception as error:  # zipfile and NumPy raise anything on broken headers
        why = " ".join(str(error).split())[:200]
        raise MufinError(
            f"{path} is not a complete sparse matrix ({why}); fetch it again, or delete it "
            "to find the pictures by the UIDs in img.bin"
        ) from None
    inside = not len(found.values) or -1 <= found.values.min() <= found.values.max() < size
    if len(found) != rows or not inside:
        raise MufinError(
            f"{path} has {len(found)} rows with offsets up to byte "
            f"{found.values.max(initial=0)}, but its title file has {rows} rows and img.bin "
            f"{size} bytes; the files are from different releases: fetch them again"
        )
    # The columns of a row need not be sorted in the file.
    ordered = Lists(found.offsets, found.values[np.lexsort((columns, found.rows()))])
    return ordered.only(ordered.values >= 0)  # some writers do store zeros, which are no offsets


def _check_size(path: Path, most: int) -> None:
    """Raises ValueError if a zip would unpack to more than `most` bytes."""
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > most:
            raise ValueError("too large for img.bin")


def _starts(path: Path) -> dict[str, list[int]]:
    """{UID: the bytes at which the lines of its pictures start in img.bin}."""
    found: dict[str, list[int]] = {}
    start = 0
    begins = True  # whether the next piece is the begin of a line
    with open(path, "rb") as file:
        for piece in iter(lambda: file.readline(2**16), b""):  # a line may not fit into the memory
            uid, tab, _ = piece.partition(b"\t")
            if begins and tab:
                found.setdefault(uid.decode("latin-1").strip(), []).append(start)
            begins = piece.endswith(b"\n")
            start += len(piece)
    return found


def stored_picture(store: BinaryIO, reference: str, max_bytes: int) -> tuple[bytes, str]:
    """(bytes, '') of a picture of the open img.bin, or (b'', reason).

    `reference` begins with STORED; `max_bytes` bounds the decoded picture.
    """
    place, size = reference.removeprefix(STORED), store.seek(0, 2)
    start = int(place) if re.fullmatch("[0-9]{1,18}", place) else size
    # A valid place is the start of a line, so the byte before it is a line break.
    store.seek(min(max(start - 1, 0), size))
    before = store.read(1) if start else b"\n"
    longest = 2 * max_bytes + 2**10  # base64 adds a third; the rest is room for the UID
    line = store.readline(longest)
    content = line.partition(b"\t")[2].strip()
    if before != b"\n" or not content:
        return b"", "no picture at its place in img.bin"
    if len(line) == longest or len(content) > 4 * (max_bytes // 3 + 1):
        return b"", "too many bytes"
    try:
        picture = base64.b64decode(content, validate=True)
    except ValueError:
        return b"", "broken base64"
    reason = refusal(picture)
    return (b"", reason) if reason else (picture, "")

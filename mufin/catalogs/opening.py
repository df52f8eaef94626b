"""Files from outside, plain or packed (gz, bz2, xz, zip), and the encoding of their texts.

How a file is packed is known from its first bytes, and from its name.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from isal import igzip, igzip_lib

from mufin.errors import MufinError, shown

PACKED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
ZIP, PARQUET = b"PK\x03\x04", b"PAR1"
EMPTY_ZIP = b"PK\x05\x06"
# Files that people give for a catalog, and what to do with them.
FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    b"Rar!": ("a rar archive", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "unpack it with `unzstd`"),
    b"\xd0\xcf\x11\xe0": ("an old Excel file (.xls)", "save it as .xlsx or CSV"),
    b"ORC": ("an ORC file", "write it as Parquet"),
    b"Obj\x01": ("an Avro file", "write it as Parquet or JSON lines"),
    b"ARROW1": ("an Arrow file", "write it as Parquet"),
    b"SQLite format 3": ("a SQLite database", "export the table as CSV"),
    b"%PDF": ("a PDF", "export the table as CSV"),
}
MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
MUCH = 2**30  # bytes that a packed file, which cannot be read as a stream, may always unpack to
RATIO = 100  # a larger one may unpack to so many times its size
# What is raised for a packed file that is damaged.
BROKEN = (
    EOFError,
    zlib.error,
    cast(type[Exception], igzip_lib.IsalError),  # its stub says an instance
    gzip.BadGzipFile,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
NO_DATA = (".txt", ".md", ".pdf", ".html", ".jpg", ".jpeg", ".png", ".webp", ".gif")


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a catalog, or a member of a zip file."""

    path: Path
    member: str = ""

    @property
    def shown(self) -> Path:
        """How errors name it."""
        return self.path / self.member if self.member else self.path

    @property
    def name(self) -> str:
        """Its name in lower case, without the endings of packed files."""
        name = (PurePosixPath(self.member).name if self.member else self.path.name).lower()
        if not self.member:
            name = name.removesuffix(".zip")
        for ending in PACKED:
            name = name.removesuffix(ending)
        return name


def parts_of(path: Path) -> list[Part]:
    """The file itself, or the data members of a zip file (not .xlsx), in its order.

    Raises MufinError for a zip that is broken, encrypted or empty, and for a file of another kind.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(16)
        for magic, (what, remedy) in FOREIGN.items():
            if head.startswith(magic):
                raise MufinError(f"{path} is {what}, which is not read; {remedy}")
        if not head.startswith((ZIP, EMPTY_ZIP)):
            return [Part(path)]
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except OSError as error:
        raise unreadable(path, error) from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise MufinError(f"{path} is not a complete zip; fetch it again") from None
    names = {info.filename for info in infos}
    if "xl/workbook.xml" in names or "[Content_Types].xml" in names:
        return [Part(path)]
    if "mimetype" in names:
        raise MufinError(f"{path} is an OpenDocument file, which is not read; save it as .xlsx")
    members = [info for info in infos if _is_data(info.filename)]
    if len(members) > 1:  # a read-me beside the data
        members = [i for i in members if not i.filename.lower().endswith(NO_DATA)] or members
    if any(info.flag_bits & 1 for info in members):
        raise MufinError(f"{path} is encrypted; unpack it with its password, and name the files")
    if not members:
        raise MufinError(f"{path} is a zip without files; look at download.location")
    return [Part(path, info.filename) for info in members]


def _is_data(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and not name.endswith("/")
        and parts[0] != "__MACOSX"
        and not parts[-1].startswith(".")
    )


@contextlib.contextmanager
def opened(part: Part) -> Iterator[BinaryIO]:
    """The bytes of a part, unpacked as they are read.

    Raises MufinError, in the block too, if it cannot be read or is broken.
    """
    kind = ""
    try:
        with contextlib.ExitStack() as stack:
            file: BinaryIO
            if part.member:
                kind = "zip"
                file, packing = _opened_member(part, stack)
            else:
                file = stack.enter_context(open(part.path, "rb"))
                packing = _packing_of(file.read(16), part.path.suffix)
                file.seek(0)
            if packing:
                kind = packing
                file = stack.enter_context(_unpacked(file, packing))
            yield file
    except BROKEN:
        raise MufinError(
            f"{part.shown} is a broken or cut-off {kind or 'gzip'} file; fetch it again"
        ) from None
    except OSError as error:
        if kind and not error.errno:  # bz2 has no error class of its own
            raise MufinError(
                f"{part.shown} is a broken or cut-off {kind} file; fetch it again"
            ) from None
        raise unreadable(part.shown, error) from None


def _opened_member(part: Part, stack: contextlib.ExitStack) -> tuple[BinaryIO, str]:
    """The bytes of a member of a zip, and how they are packed in turn."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(part.path))
        with archive.open(part.member) as file:
            packing = _packing_of(file.read(16), PurePosixPath(part.member).suffix)
        return stack.enter_context(archive.open(part.member)), packing  # type: ignore[return-value]
    # What zipfile raises for ways of packing that it does not know, and for damaged names.
    except (NotImplementedError, RuntimeError, ValueError, LookupError) as error:
        raise MufinError(
            f"{part.shown} cannot be unpacked ({error}); unpack {part.path}, and name the files"
        ) from None


def _packing_of(head: bytes, suffix: str) -> str:
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    return PACKED.get(suffix.lower(), "")


def _unpacked(file: BinaryIO, kind: str) -> BinaryIO:
    if kind == "gzip":
        return cast(BinaryIO, igzip.open(file))  # three times as fast as gzip
    return bz2.open(file) if kind == "bzip2" else lzma.open(file)  # type: ignore[return-value]


@contextlib.contextmanager
def seekable(part: Part) -> Iterator[Path | BinaryIO]:
    """The part as a file to jump in: its path, or a temporary file if it is packed.

    Raises MufinError if it would unpack to more than MUCH and RATIO times its size.
    """
    if not part.member and _is_plain(part.path):
        yield part.path
        return
    with tempfile.TemporaryFile() as copy:
        most = max(MUCH, RATIO * part.path.stat().st_size)
        with opened(part) as file:
            while copy.tell() <= most and (piece := file.read(2**20)):
                copy.write(piece)
        if copy.tell() > most:
            raise MufinError(
                f"{part.shown} unpacks to more than {most / 2**20:.0f} MB; unpack it first"
            )
        copy.seek(0)
        yield copy


def _is_plain(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return not _packing_of(file.read(16), path.suffix)
    except OSError as error:
        raise unreadable(path, error) from None


def encoding_of(head: bytes, encoding: str | None) -> str:
    """The encoding of a text with these first bytes: as its mark (BOM) says, else `encoding`."""
    for mark, name in MARKS.items():
        if head.startswith(mark):
            return name
    return encoding or "utf-8"


def without_mark(head: bytes) -> str:
    """`utf-16-le` or `utf-16-be` if the bytes look like it, although they have no mark; else ''."""
    few = head[:64]
    if len(few) >= 4 and not any(few[1::2]) and all(few[::2]):
        return "utf-16-le"
    if len(few) >= 4 and not any(few[::2]) and all(few[1::2]):
        return "utf-16-be"
    return ""


def unreadable(path: Path, error: OSError) -> MufinError:
    return MufinError(
        f"{path} cannot be read ({error.strerror or error}); "
        "make it readable, or set download.location to another file"
    )


def check_encoding(encoding: str | None) -> None:
    """Raises MufinError if Python has no text encoding of this name."""
    if encoding is None:
        return
    try:
        "a".encode(encoding)
    except (LookupError, UnicodeError, ValueError):
        raise MufinError(
            f"download.encoding is {shown(encoding)}, which is no encoding; set it to one such as "
            "cp1252, latin-1 or utf-16-le, or to null"
        ) from None

"""Text files from outside, read line by line with bounded memory.

A packed file of a few megabytes can unpack to gigabytes without a line break.
"""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from mufin.catalogs.opening import Part, check_encoding, encoding_of, opened, without_mark
from mufin.errors import MufinError

LONGEST = 2**24  # characters per line or item; it is a product, and one is in memory at a time
PIECE = 2**16  # characters that are read at once, where there are no lines
HEAD = 2**10  # bytes that show the encoding


@contextlib.contextmanager
def text_file(
    file: Path | Part, encoding: str | None = None, newline: str | None = None
) -> Iterator[TextIO]:
    """The open text of a file, unpacked; in the encoding of its byte order mark, else as given.

    Without both it is UTF-8. Raises MufinError, in the block too, if it cannot be read or is not in
    its encoding.
    """
    part = file if isinstance(file, Part) else Part(file)
    check_encoding(encoding)
    name, head = "utf-8", b""
    try:
        with opened(part) as raw:
            stream = io.BufferedReader(raw)  # type: ignore[type-var]
            head = stream.peek(HEAD)[:HEAD]
            name = encoding_of(head, encoding)
            with io.TextIOWrapper(stream, encoding=name, newline=newline) as text:
                yield text
    except UnicodeError:
        raise _wrong_encoding(part, name, head) from None


def lines_of(file: Path | Part, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line that is not blank, of a text file.

    Raises MufinError if the file cannot be read, is not in its encoding, or has a line of more than
    LONGEST characters.
    """
    with text_file(file, encoding) as text:
        yield from _not_blank(text, _shown(file))


def lines_in(block: bytes, shown: Path, first: int) -> Iterator[tuple[int, str]]:
    """As `lines_of`, of a block of UTF-8 whose first line is number `first`; raises UnicodeError
    too.
    """
    with io.TextIOWrapper(io.BytesIO(block), encoding="utf-8") as text:
        yield from _not_blank(text, shown, first)


def _not_blank(text: TextIO, shown: Path, first: int = 1) -> Iterator[tuple[int, str]]:
    for number, line in _lines(text, shown, LONGEST, "write one product per line", first):
        if "\0" in line:
            raise _nul(shown, number)
        if line.strip():
            yield number, line


@contextlib.contextmanager
def utf8_blocks(part: Part, size: int) -> Iterator[Iterator[bytes]]:
    """Blocks of whole lines of a UTF-8 file, of about `size` bytes, without a byte order mark.

    The block in which a line ends that is longer than that is longer as well; from 4 LONGEST bytes
    on, it is not the end of a line. Raises MufinError as `text_file` does.
    """
    head = b""
    try:
        with opened(part) as raw:
            head = raw.read(HEAD)
            yield _blocks(raw, head.removeprefix(codecs.BOM_UTF8), size)
    except UnicodeError:
        raise _wrong_encoding(part, "utf-8", head) from None


def _blocks(raw: BinaryIO, left: bytes, size: int) -> Iterator[bytes]:
    while piece := raw.read(size):
        end = piece.rfind(b"\n") + 1
        if end or len(left) > 4 * LONGEST:
            yield b"".join((left, memoryview(piece)[:end]))  # copies once
            left = piece[end:]
        else:
            left += piece
    if left:
        yield left


def latin1_lines_of(path: Path, longest: int = LONGEST) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line, also of a blank one; errors as `lines_of`.

    Lines end with \\n only: in latin-1, Python would also split at other line breaks in titles.
    """
    with text_file(path, "latin-1", "\n") as text:
        yield from _lines(text, path, longest, "fetch the file again")


def _lines(
    text: TextIO, path: Path, longest: int, remedy: str, first: int = 1
) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(iter(lambda: text.readline(longest + 1), ""), first):
        if len(line) > longest:
            raise MufinError(f"{path} line {number} has more than {longest} characters; {remedy}")
        yield number, line


def begins_with(path: Path, character: str) -> bool:
    """Whether the first character of the file that is not a space is this one."""
    return first_character(path) == character


def first_character(file: Path | Part, encoding: str | None = None) -> str:
    """The first character that is not a space, '' if there is none."""
    with text_file(file, encoding) as text:
        while (piece := text.read(PIECE)) and not piece.strip():
            pass
    return piece.lstrip()[:1]


def _nul(path: Path, number: int) -> MufinError:
    return MufinError(
        f"{path} line {number} has a NUL character; if the file is UTF-16, set download.encoding "
        "to utf-16-le or utf-16-be, else write it again"
    )


def _shown(file: Path | Part) -> Path:
    return file.shown if isinstance(file, Part) else file


def _wrong_encoding(part: Part, name: str, head: bytes) -> MufinError:
    line = _first_wrong_line(part, name)
    if name not in ("utf-8", "utf-8-sig"):
        return MufinError(
            f"{part.shown} line {line} is not {name} text; set download.encoding to the encoding "
            "of the file, or convert it to UTF-8"
        )
    likely = without_mark(head) or "cp1252"
    return MufinError(
        f"{part.shown} line {line} is not UTF-8 text; convert the file to UTF-8, or set "
        f"download.encoding to its encoding, such as {likely}"
    )


def _first_wrong_line(part: Part, name: str) -> int:
    """The number of the first line that is not in the encoding, from 1.

    The text layer that raised the error does not know it, because it decodes many lines at once.
    """
    number = 1
    try:
        with opened(part) as file:
            if not name.startswith("utf-8"):
                return _line_of_many_bytes(file, name)
            for piece in iter(lambda: file.readline(LONGEST), b""):
                piece.decode()
                number += piece.endswith(b"\n")
    except (UnicodeError, MufinError):
        pass
    return number


def _line_of_many_bytes(file: BinaryIO, name: str) -> int:
    """The same, where a line break may be several bytes: the text layer reads little at a time."""
    with io.TextIOWrapper(file, encoding=name, newline="\n") as text:
        text._CHUNK_SIZE = 1  # type: ignore[attr-defined]
        number = 1
        with contextlib.suppress(UnicodeError):
            while piece := text.readline(LONGEST):
                number += piece.endswith("\n")
    return number

"""Text files from outside, plain or gzipped, read with bounded memory: by line or by JSON item.

A gzipped file of a few megabytes can unpack to gigabytes without a line break.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mufin.errors import MufinError

LONGEST = 2**24  # characters per line or item; it is a product, and one is in memory at a time
PIECE = 2**16  # characters that are read at once, where there are no lines
SPACES = re.compile(r"[ \t\r\n]*")
NUMBER = "0123456789.eE+-"  # characters in a number; '' is in it too, so also the end of the text


@contextlib.contextmanager
def text_file(
    path: Path, encoding: str = "utf-8-sig", newline: str | None = None
) -> Iterator[TextIO]:
    """The open file, unpacked if it is gzipped.

    Raises MufinError, in the block too, if it cannot be read or is not in its encoding.
    """
    try:
        with io.TextIOWrapper(_opened(path), encoding=encoding, newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        raise MufinError(
            f"{path} line {_first_not_utf8(path)} is not UTF-8 text; convert the file to UTF-8"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise MufinError(f"{path} is a broken or cut-off gzip file; fetch it again") from None
    except OSError as error:
        raise MufinError(
            f"{path} cannot be read ({error.strerror or error}); "
            "make it readable, or set download.location to another file"
        ) from None


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line that is not blank, of a UTF-8 text file.

    Raises MufinError if the file cannot be read, is not UTF-8, or has a line of more than LONGEST
    characters.
    """
    with text_file(path) as file:
        for number, line in _lines(file, path, LONGEST, "write one product per line"):
            if line.strip():
                yield number, line


def latin1_lines_of(path: Path, longest: int = LONGEST) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line, also of a blank one; errors as `lines_of`.

    Lines end with \\n only: in latin-1, Python would also split at other line breaks in titles.
    """
    with text_file(path, "latin-1", "\n") as file:
        yield from _lines(file, path, longest, "fetch the file again")


def _lines(file: TextIO, path: Path, longest: int, remedy: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(iter(lambda: file.readline(longest + 1), ""), 1):
        if len(line) > longest:
            raise MufinError(f"{path} line {number} has more than {longest} characters; {remedy}")
        yield number, line


def begins_with(path: Path, character: str) -> bool:
    """Whether the first character of the file that is not a space is this one."""
    with text_file(path) as file:
        while (piece := file.read(PIECE)) and not piece.strip():
            pass
    return piece.lstrip().startswith(character)


def json_items(path: Path) -> Iterator[object]:
    """The items of a JSON list, one at a time; it may be on one line.

    Raises MufinError if the file cannot be read, is not a JSON list, or has an item of more than
    LONGEST characters.
    """
    with text_file(path) as file:
        text = _JsonText(file, path)
        text.character("[")
        if text.next() == "]":
            text.character("]")
        else:
            yield text.item()
            while text.character(",]") == ",":
                yield text.item()
        if text.next():
            raise text.error("text after the end of the list")


class _JsonText:
    """A JSON text that is read as far as needed."""

    def __init__(self, file: TextIO, path: Path):
        self.file, self.path = file, path
        self.text, self.at = "", 0  # what was read and not yet dropped, and the place in it
        self.line = 1  # number of the line with the first character of `text`
        self.decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is not a space, '' at the end; it is not consumed."""
        while True:
            self.at = SPACES.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def character(self, expected: str) -> str:
        """Consumes the next character, which must be one of `expected`."""
        found = self.next()
        if not found or found not in expected:
            raise self.error(f"{' or '.join(expected)} expected")
        self.at += 1
        return found

    def item(self) -> object:
        """Consumes one JSON value."""
        self.next()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
                # A number may go on in the part that is not read yet.
                whole = (
                    not isinstance(value, (int, float)) or self.text[end : end + 1] not in NUMBER
                )
                if whole or not self._more():
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                if not self._more():  # else the item may only be incomplete so far
                    raise self.error(error.msg, error.pos) from None
            # A number with thousands of digits, or thousands of nested brackets.
            except (ValueError, RecursionError):
                raise self.error("not a product") from None

    def error(self, why: str, at: int | None = None) -> MufinError:
        line = self.line + self.text.count("\n", 0, self.at if at is None else at)
        return MufinError(f"{self.path} line {line} is not JSON ({why}); fetch it again")

    def _more(self) -> bool:
        """Reads on; False at the end of the file.

        Each time as much as there is already, so that reading a long item takes linear time.
        """
        left = len(self.text) - self.at
        if left > LONGEST:
            raise MufinError(
                f"{self.path} has a product of more than {LONGEST} characters; fetch it again"
            )
        piece = self.file.read(max(PIECE, left))
        if piece:  # else the text stays whole, for the error
            self.line += self.text.count("\n", 0, self.at)
            self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)


def _opened(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """The file's bytes, unpacked if its name or its first bytes say that it is gzipped."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b" or path.suffix == ".gz"
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _first_not_utf8(path: Path) -> int:
    """The number of the first line that is not UTF-8, from 1.

    The text layer that raised the error does not know it, because it decodes many lines at once.
    """
    number = 1
    try:
        with _opened(path) as file:
            for piece in iter(lambda: file.readline(LONGEST), b""):
                piece.decode()
                number += piece.endswith(b"\n")
    except (UnicodeDecodeError, EOFError, zlib.error, OSError):
        pass
    return number

"""JSON that is longer than a line: read item by item, with bounded memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from mufin.catalogs import text_files
from mufin.catalogs.opening import Part
from mufin.catalogs.text_files import text_file
from mufin.errors import MufinError

SPACES = re.compile(r"[ \t\r\n]*")
NUMBER = "0123456789.eE+-"  # characters in a number; '' is in it too, so also the end of the text
DEEPEST = 8  # objects around a list of products


def json_items(file: Path | Part, encoding: str | None = None) -> Iterator[object]:
    """The items of a JSON list, one at a time; it may be on one line.

    Raises MufinError if the file cannot be read, is not a JSON list, or has an item of more than
    LONGEST characters.
    """
    with text_file(file, encoding) as text:
        for _, item in JsonText(text, _shown(file)).items_of_list():
            yield item


class Twice(Exception):
    """A name that occurs twice in an object."""


class JsonText:
    """A JSON text that is read as far as needed."""

    def __init__(self, file: TextIO, path: Path, decoder: json.JSONDecoder | None = None):
        self.file, self.path = file, path
        self.text, self.at = "", 0  # what was read and not yet dropped, and the place in it
        self.line, self.counted = 1, 0  # number of the line at place `counted` of `text`
        self.decoder = decoder or json.JSONDecoder()

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
            except Twice as error:
                raise self.error(f"a product has {error}") from None

    def here(self) -> int:
        """The number of the line with the next character that is not a space."""
        self.next()
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def items(self) -> Iterator[tuple[int, object]]:
        """(line, value) of values one after the other, up to the end."""
        while self.next():
            line = self.here()
            yield line, self.item()

    def items_of_list(self) -> Iterator[tuple[int, object]]:
        """(line, item) of a list, which must end the text."""
        yield from self._list()
        if self.next():
            raise self.error("text after the end of the list")

    def _list(self) -> Iterator[tuple[int, object]]:
        self.character("[")
        if self.next() == "]":
            self.character("]")
            return
        line = self.here()
        yield line, self.item()
        while self.character(",]") == ",":
            line = self.here()
            yield line, self.item()

    def items_under_key(self, wanted: Callable[[dict], bool]) -> Iterator[tuple[int, object]]:
        """(line, item) of the first list of objects in an object, also deeper in it.

        Of several lists it is the first one whose first object is `wanted`.
        """
        yield from self._under_key(wanted, 1)

    def _under_key(
        self, wanted: Callable[[dict], bool], depth: int
    ) -> Iterator[tuple[int, object]]:
        """Consumes an object; after the list that was found, its rest is skipped."""
        self.character("{")
        if self.next() == "}":
            self.character("}")
            return
        found = False
        while True:
            self.item()  # the key
            self.character(":")
            first = self.next()
            if found or first not in ("[", "{") or (first == "{" and depth == DEEPEST):
                self.item()
            else:
                inner = (
                    self._wanted_list(wanted)
                    if first == "["
                    else self._under_key(wanted, depth + 1)
                )
                for item in inner:
                    found = True
                    yield item
            if self.character(",}") == "}":
                return

    def _wanted_list(self, wanted: Callable[[dict], bool]) -> Iterator[tuple[int, object]]:
        rows = self._list()
        for number, (line, item) in enumerate(rows):
            if number == 0:
                good = isinstance(item, dict) and wanted(item)
            if good:
                yield line, item

    def error(self, why: str, at: int | None = None) -> MufinError:
        line = self.line + self.text.count("\n", self.counted, self.at if at is None else at)
        return MufinError(f"{self.path} line {line} is not JSON ({why}); fetch it again")

    def _more(self) -> bool:
        """Reads on; False at the end of the file.

        Each time as much as there is already, so that reading a long item takes linear time.
        """
        left = len(self.text) - self.at
        if left > text_files.LONGEST:
            raise MufinError(
                f"{self.path} has a product of more than {text_files.LONGEST} characters; "
                "fetch it again"
            )
        piece = self.file.read(max(text_files.PIECE, left))
        if piece:  # else the text stays whole, for the error
            self.line += self.text.count("\n", self.counted, self.at)
            self.text, self.at, self.counted = self.text[self.at :] + piece, 0, 0
        return bool(piece)


def _shown(file: Path | Part) -> Path:
    return file.shown if isinstance(file, Part) else file

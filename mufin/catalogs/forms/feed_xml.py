"""XML feeds, read item by item with bounded memory, and without anything that XML lets a file do.

Document type declarations are refused: with them, a file of a kilobyte can unpack to gigabytes, or
name files of this machine. Feeds need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from mufin.catalogs.opening import Part, opened
from mufin.errors import MufinError

ITEMS = frozenset(["item", "entry"])  # of RSS and of Atom
PIECE = 2**16  # bytes that are read at once
LONGEST = 2**22  # characters in an item, and bytes of one tag
DEEPEST = 64  # elements inside each other; a feed has five
SPACES = b" \t\r\n"
MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # byte order marks

Item = dict[str, list[str]]


def begins_as_xml(part: Part) -> bool:
    """Whether the first character of the file, unpacked, is `<`."""
    with opened(part) as file:
        start = file.read(PIECE)
    for mark in MARKS:
        start = start.removeprefix(mark)
    return start.lstrip(SPACES + b"\0").startswith(b"<")


def items_of(part: Part) -> Iterator[tuple[int, Item]]:
    """(line, {name: texts}) of each item or entry: the texts of the elements directly in it.

    Names with a prefix, whatever it is, begin with `g:`. Raises MufinError if the file is not XML,
    declares a document type, or has an item or a tag that is larger than LONGEST.
    """
    reader = _Items(part.shown)
    with opened(part) as file:
        while piece := file.read(PIECE):
            yield from reader.feed(piece)
        yield from reader.feed(b"", final=True)
    if not reader.count:
        raise MufinError(
            f"{part.shown} is XML without <item> or <entry>, so it is not a Google Merchant feed; "
            "export the feed as RSS or Atom"
        )


class _Items:
    """Collects the items of one file; see `items_of`."""

    def __init__(self, path: Path):
        self.path, self.count = path, 0
        self.done: list[tuple[int, Item]] = []
        self.depth, self.inside = 0, 0  # elements that are open; the depth of the open item, or 0
        self.item: Item = {}
        self.line = self.size = 0  # of the open item
        self.text: list[str] | None = None  # of the open element, if it is directly in an item
        self.given = 0  # bytes
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, piece: bytes, final: bool = False) -> list[tuple[int, Item]]:
        """The items that end in this piece of the file."""
        self.done = []
        try:
            self.parser.Parse(piece, final)
        except expat.ExpatError as error:
            raise MufinError(
                f"{self.path} line {error.lineno} is not XML ({expat.ErrorString(error.code)}); "
                "export the feed again"
            ) from None
        except (LookupError, ValueError) as error:  # an encoding that Python does not know
            raise MufinError(f"{self.path} cannot be read ({error}); export it as UTF-8") from None
        self.given += len(piece)
        if self.given - self.parser.CurrentByteIndex > LONGEST + PIECE:
            raise self._error(f"a tag of more than {LONGEST} bytes")
        return self.done

    def _start(self, name: str, _: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self._error(f"more than {DEEPEST} elements inside each other")
        if self.inside:
            self._grow(len(name) + 1)
        if not self.inside and name.rpartition(":")[2].lower() in ITEMS:
            self.inside, self.item, self.size = self.depth, {}, 0
            self.line = self.parser.CurrentLineNumber
        elif self.inside and self.depth == self.inside + 1:
            self.text = []

    def _end(self, name: str) -> None:
        if self.inside and self.depth == self.inside:
            self.inside, self.count = 0, self.count + 1
            self.done.append((self.line, self.item))
        elif self.text is not None and self.depth == self.inside + 1:
            prefix, _, local = name.rpartition(":")
            key = f"g:{local}" if prefix else local
            self.item.setdefault(key.lower(), []).append("".join(self.text).strip())
            self.text = None
        self.depth -= 1

    def _characters(self, text: str) -> None:
        if self.inside:
            self._grow(len(text))
            if self.text is not None and self.depth == self.inside + 1:
                self.text.append(text)

    def _grow(self, characters: int) -> None:
        self.size += characters
        if self.size > LONGEST:
            raise self._error(f"an item of more than {LONGEST} characters")

    def _doctype(self, *_: object) -> None:
        raise self._error("a document type declaration (<!DOCTYPE>), which can hold anything")

    def _error(self, what: str) -> MufinError:
        line = self.parser.CurrentLineNumber
        return MufinError(f"{self.path} line {line} has {what}; export the feed without it")

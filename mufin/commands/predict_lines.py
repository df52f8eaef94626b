"""The lines that `mufin predict` reads: products of the catalog by uid, and new ones."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mufin.errors import MufinError, shown
from mufin.settings_file import regular_bytes

LONGEST = 2**20  # bytes of a line
MOST_IMAGES = 100  # of a line
MOST_TEXTS = 100  # of a line
KEYS = ("uid", "id", "title", "texts", "images", "category")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the input, read."""

    number: int  # from 1
    id: str | None  # None where the line has none
    uid: str | None = None  # of a product of the catalog; None for a new one
    title: str = ""
    images: tuple[Path, ...] = ()
    category: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()  # beside the title
    problem: str = ""  # what is wrong with the line, and the remedy

    def refused(self, problem: str) -> Line:
        return replace(self, problem=problem)


@dataclass(frozen=True, slots=True)
class Survey:
    """The whole input, read once before anything is answered."""

    digest: str  # of all lines, and of sizes and times of the pictures
    count: int  # lines that have a row
    bad: list[Line]  # the first bad line, if there is one


class Reader:
    """Reads the lines of the file `source`; `uids` are those of the catalog.

    A picture may have `most` bytes. Empty lines are passed over and have no row.
    """

    def __init__(self, source: Path, uids: frozenset[str], most: int):
        self.source, self.uids, self.most = source, uids, most

    def survey(self) -> Survey:
        """What all lines are; raises MufinError if the file cannot be read."""
        digest, count = hashlib.sha256(), 0
        bad: list[Line] = []
        for number, content in self._contents():
            line = self._line(number, content)
            for path in line.images:
                line = line if line.problem else self._looked(line, path, digest)
            digest.update(content + b"\n")
            count += 1
            if line.problem and not bad:
                bad = [line]
        return Survey(digest.hexdigest(), count, bad)

    def batches(self, size: int, skipped: int) -> Iterator[list[Line]]:
        """The lines, `size` at once, without the first `skipped` batches."""
        contents = islice(self._contents(), skipped * size, None)
        while part := list(islice(contents, size)):
            yield [self._line(*pair) for pair in part]

    def pictures(self, line: Line) -> tuple[Line, tuple[bytes, ...]]:
        """The bytes of the pictures of a line, which has a problem if they cannot be read."""
        if line.problem:
            return line, ()
        out = []
        for path in line.images:
            try:
                out.append(regular_bytes(path, self.most))
            except (OSError, ValueError) as error:
                return line.refused(_unreadable(path, error)), ()
        return line, tuple(out)

    def _contents(self) -> Iterator[tuple[int, bytes]]:
        """(number, bytes) of each line that is not empty; a longer one ends after LONGEST + 1."""
        try:
            regular = stat.S_ISREG(os.stat(self.source).st_mode)  # opening a pipe would block
            file = open(self.source, "rb") if regular else None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise MufinError(f"{self.source} cannot be read: {reason}; give another file") from None
        if file is None:
            raise MufinError(f"{self.source} is not a file; give a file of JSON lines")
        with file:
            number = 0
            while content := file.readline(LONGEST + 1):
                number += 1
                if len(content) > LONGEST:
                    _pass_over(file)
                content = content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content
                if content := content.strip():
                    yield number, content

    def _line(self, number: int, content: bytes) -> Line:
        try:
            said = _object(content)
        except ValueError as error:
            return Line(number, None, problem=str(error))
        name = said.get("id", said.get("uid"))
        line = Line(number, name if _is_text(name) else None)
        try:
            return self._product(line, said)
        except ValueError as error:
            return line.refused(str(error))

    def _product(self, line: Line, said: dict) -> Line:
        """The line with the product that it names; raises ValueError with the problem."""
        _check_keys(said)
        if line.id is None:
            text = said.get("id", said.get("uid"))
            raise ValueError(f"its id is {shown(text)}; give a text, as uid or id")
        if "uid" in said:
            if said["uid"] not in self.uids:
                raise ValueError(
                    f"{shown(said['uid'])} is not a product of the catalog; leave the line out, or "
                    "give id, title and images"
                )
            return replace(line, uid=said["uid"])
        title = said.get("title") or ""
        if not _is_text(title):
            raise ValueError(f"its title is {shown(title)}; give a text")
        texts = _texts(said, "texts", MOST_TEXTS)
        images = _texts(said, "images", MOST_IMAGES)
        if not images and not any(text.strip() for text in (title, *texts)):
            raise ValueError("it has neither title, texts nor images; give one of them")
        folder = self.source.parent
        paths = tuple(folder / name for name in images)
        category = _texts(said, "category")
        return replace(line, title=title, texts=texts, images=paths, category=category)

    def _looked(self, line: Line, path: Path, digest: hashlib._Hash) -> Line:
        """The line, which has a problem if a picture is not there; hashes its size and time."""
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            return line.refused(_unreadable(path, error))
        digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode())
        return line


def _pass_over(file: BinaryIO) -> None:
    """Reads to the end of a line."""
    while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
        continue


def _object(content: bytes) -> dict:
    if len(content) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} bytes; give one product per line")
    try:
        said = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{shown(content.decode())} is not JSON; correct it") from None
    if not isinstance(said, dict):
        raise ValueError(f'it is {shown(said)}; give an object such as {{"uid": ...}}')
    return said


def _check_keys(said: dict) -> None:
    for key in said:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(KEYS)}"
            raise ValueError(f"it has {shown(key)}; {hint}")
    if "uid" in said and (others := [k for k in KEYS[2:] if k in said]):
        raise ValueError(f"it has uid and {others[0]}; give uid, or id with {others[0]}")


def _texts(said: dict, name: str, most: int | None = None) -> tuple[str, ...]:
    """The list of texts of that name; raises ValueError if it has more than `most`."""
    values = said.get(name) or []
    if not isinstance(values, list) or not all(map(_is_text, values)):
        raise ValueError(f"its {name} is {shown(values)}; give a list of texts")
    if most is not None and len(values) > most:
        raise ValueError(f"it has {len(values):,} {name}; give at most {most}")
    return tuple(values)


def _is_text(value: object) -> bool:
    """Whether it is a text that UTF-8 can write."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _unreadable(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return f"{path} cannot be read: {reason}; correct its path in images"

"""The log of fetched pictures, from which a killed download goes on."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import BinaryIO, Callable, Iterator


class FetchLog:
    """What has been fetched so far, one record after another: a line of JSON, then the bytes.

    A record is on disk before the next reference is looked at. A kill can tear the last one, which is cut off on opening.
    `done` has what need not be asked for again; what failed in an earlier run is asked for again, and its last record counts.
    """

    def __init__(self, path: Path):
        self.path = path
        self.done: set[str] = set()
        self.places: dict[str, int] = {}  # where the last record of each reference starts
        if path.exists():
            whole = 0
            with open(path, "rb") as file:
                while record := _record(file):
                    (self.done.discard if record[2] else self.done.add)(record[0])
                    self.places[record[0]], whole = whole, file.tell()
            os.truncate(path, whole)
        self.file = open(path, "ab")

    def add(self, reference: str, content: bytes, reason: str) -> None:
        head = json.dumps({"url": reference, "reason": reason, "size": len(content)}).encode()
        place = self.file.tell()
        self.file.write(head + b"\n" + content + b"\n")
        self.file.flush()
        self.done.add(reference)
        self.places[reference] = place

    def close(self) -> None:
        self.file.close()

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[str], tuple[str, bytes, str] | None]]:
        """A function from a reference to its (reference, bytes, reason), None for one that is not in the log."""
        with open(self.path, "rb") as file:

            def record_of(reference: str) -> tuple[str, bytes, str] | None:
                if reference not in self.places:
                    return None
                file.seek(self.places[reference])
                return _record(file)

            yield record_of


def _record(file: BinaryIO) -> tuple[str, bytes, str] | None:
    """The record that starts here; None where there is no whole one."""
    try:
        head = json.loads(file.readline())
        url, reason, size = head["url"], head["reason"], head["size"]
    except (ValueError, KeyError, TypeError):  # cut off in the middle, or damaged
        return None
    content = file.read(size + 1)
    return (url, content[:-1], reason) if len(content) == size + 1 else None

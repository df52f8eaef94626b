"""The log of fetched pictures, from which a killed download continues."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


class FetchLog:
    """The results of all fetches so far, in one file: per record a line of JSON, then the bytes.

    Opening it cuts off a last record that a kill left incomplete. A reference that failed in an
    earlier run is not in `done`, so it is fetched again. If it has several records, the last
    counts.
    """

    def __init__(self, path: Path):
        self.path = path
        self.done: set[str] = set()  # references that this run need not fetch
        self.places: dict[str, int] = {}  # byte at which the last record of a reference starts
        if path.exists():
            self._read_records()
        self.file = open(path, "ab")

    def _read_records(self) -> None:
        end = 0  # of the last complete record
        with open(self.path, "rb") as file:
            while record := _record(file):
                reference, _, reason = record
                if reason:
                    self.done.discard(reference)
                else:
                    self.done.add(reference)
                self.places[reference] = end
                end = file.tell()
        os.truncate(self.path, end)

    def add(self, reference: str, content: bytes, reason: str) -> None:
        """Append one result: the bytes, or no bytes and the reason of the failure.

        The record is handed to the operating system before the method returns, so it outlives a
        kill of this process.
        """
        head = json.dumps({"url": reference, "reason": reason, "size": len(content)}).encode()
        place = self.file.tell()
        self.file.write(head + b"\n" + content + b"\n")
        self.file.flush()
        self.done.add(reference)  # also if it failed: one fetch per run
        self.places[reference] = place

    def close(self) -> None:
        self.file.close()

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[str], tuple[str, bytes, str] | None]]:
        """A function from a reference to its (reference, bytes, reason), or to None if unknown."""
        with open(self.path, "rb") as file:

            def record_of(reference: str) -> tuple[str, bytes, str] | None:
                if reference not in self.places:
                    return None
                file.seek(self.places[reference])
                return _record(file)

            yield record_of


def _record(file: BinaryIO) -> tuple[str, bytes, str] | None:
    """(reference, bytes, reason) of the record that starts here; None if it is not complete."""
    try:
        head = json.loads(file.readline())
        url, reason, size = head["url"], head["reason"], head["size"]
    except (ValueError, KeyError, TypeError):  # cut off in the middle, or damaged
        return None
    content = file.read(size + 1)  # with the line break after it
    return (url, content[:-1], reason) if len(content) == size + 1 else None

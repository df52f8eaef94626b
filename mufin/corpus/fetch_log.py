"""The log of fetched pictures, from which a killed download continues."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mufin.artifacts.publication import sync
from mufin.corpus.digests import Digests, digest_of
from mufin.corpus.reasons import GIVEN_UP, lasting

Record = tuple[str, bytes, str]  # reference, bytes, reason


class FetchLog:
    """The results of all fetches so far, in one file: per record a line of JSON, then the bytes.

    Opening it cuts off a last record that a kill left incomplete. If a reference has several
    records, the last counts. A reference that failed in an earlier run is not `done`, so it is
    fetched again, unless it failed for a lasting reason, such as HTTP 404, under the same
    `settings`: others may bound a fetch in another way.
    """

    def __init__(self, path: Path, settings: str = ""):
        self.path, self.settings = path, settings
        # Per reference: twice the byte at which its last record starts, and 1 more if this run need
        # not fetch it. URLs are kept as digests: as texts, millions of them would take gigabytes.
        self.records = Digests()
        if path.exists():
            self._read_records()
        self.file = open(path, "ab")
        sync(path.parent)  # else the file could be missing after a power loss

    def _read_records(self) -> None:
        end = 0  # of the last complete record
        with open(self.path, "rb") as file:
            while found := _record(file):
                (reference, _, reason), settings = found
                done = not reason or lasting(reason) and settings == self.settings
                self.records.put(digest_of(reference), 2 * end + done)
                end = file.tell()
        os.truncate(self.path, end)

    def done(self, reference: str) -> bool:
        """Whether this run need not fetch a reference."""
        number = self.records.get(digest_of(reference))
        return number >= 0 and number % 2 == 1

    def add(self, records: Iterable[Record]) -> None:
        """Append results: per reference the bytes, or no bytes and the reason of the failure.

        All of them are on the disk when the method returns, and only then `done`. Many at once
        cost one wait for the disk.
        """
        added: list[tuple[str, str, int]] = []  # reference, reason, place
        for reference, content, reason in records:
            head: dict = {"url": reference, "reason": reason, "size": len(content)}
            head["crc"] = zlib.crc32(content)
            if reason:
                head["settings"] = self.settings
            added.append((reference, reason, self.file.tell()))
            self.file.write(json.dumps(head).encode() + b"\n" + content + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        for reference, reason, place in added:
            # Done also if it failed: one fetch per run. If it was given up, nobody was asked, so it
            # may be asked again in this run.
            self.records.put(digest_of(reference), 2 * place + (reason != GIVEN_UP))

    def close(self) -> None:
        self.file.close()

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[str], Record | None]]:
        """A function from a reference to its (reference, bytes, reason), or to None if unknown."""
        with open(self.path, "rb") as file:

            def record_of(reference: str) -> Record | None:
                if (number := self.records.get(digest_of(reference))) < 0:
                    return None
                file.seek(number // 2)
                found = _record(file)
                return found and found[0]

            yield record_of


def records_of(path: Path) -> Iterator[Record]:
    """The complete records of a log, in order."""
    with open(path, "rb") as file:
        while found := _record(file):
            yield found[0]


def _record(file: BinaryIO) -> tuple[Record, str] | None:
    """The record that starts here, and the settings of its run; None if it is not complete.

    The checksum finds a record whose last part a power loss kept from the disk.
    """
    try:
        head = json.loads(file.readline().decode())  # bytes would be looked at for their encoding
        url, reason, size = head["url"], head["reason"], head["size"]
    except (ValueError, KeyError, TypeError):  # cut off in the middle, or damaged
        return None
    content = file.read(size + 1)  # with the line break after it
    if len(content) != size + 1:
        return None
    checksum = zlib.crc32(content[:-1])
    # Without one in the head, the record was written before there were checksums.
    if head.get("crc", checksum) != checksum:
        return None
    return (url, content[:-1], reason), head.get("settings", "")

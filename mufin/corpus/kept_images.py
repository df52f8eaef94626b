"""Images that a catalog holds itself, as bytes or data: URLs, until the image store is made."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from mufin.corpus.formats import refusal
from mufin.corpus.image_store import key_of
from mufin.corpus.reasons import TOO_LARGE

PREFIX = "sha256:"  # of a reference; the key of the image follows
LENGTH = 8  # bytes of the size before each image in the file
LARGE = -1  # the place of an image that is not kept


class KeptImages:
    """Images in a file, found by references that name their content; each content is kept once.

    The file is made with the first image. An image of more than `max_bytes` is not kept.
    """

    def __init__(self, path: Path, max_bytes: int):
        self.path, self.max_bytes = path, max_bytes
        self.places: dict[bytes, int] = {}  # key -> byte at which its image starts
        self.file: BinaryIO | None = None
        self.end = 0

    def keep(self, content: bytes) -> str:
        """Keep an image; returns its reference."""
        key = key_of(content)
        if (digest := bytes.fromhex(key)) not in self.places:
            large = len(content) > self.max_bytes
            self.places[digest] = LARGE if large else self._written(content)
        return PREFIX + key

    def __contains__(self, reference: str) -> bool:
        return _digest(reference) in self.places

    def fetch(self, reference: str) -> tuple[bytes, str]:
        """(bytes, '') of a kept image, or (b'', reason), as `Fetcher.fetch` answers."""
        place = self.places[_digest(reference)]
        if place == LARGE:
            return b"", TOO_LARGE
        assert self.file is not None
        self.file.seek(place)
        content = self.file.read(int.from_bytes(self.file.read(LENGTH), "big"))
        reason = refusal(content)
        return (b"", reason) if reason else (content, "")

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _written(self, content: bytes) -> int:
        """The place of the image, which is appended to the file."""
        if self.file is None:
            self.file = open(self.path, "w+b")
        place = self.end
        self.file.seek(place)
        self.file.write(len(content).to_bytes(LENGTH, "big") + content)
        self.end += LENGTH + len(content)
        return place


def _digest(reference: str) -> bytes:
    """The key in a reference, b'' if it is none of a kept image."""
    if not reference.startswith(PREFIX):
        return b""
    try:
        return bytes.fromhex(reference[len(PREFIX) :])
    except ValueError:
        return b""

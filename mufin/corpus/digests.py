"""Whole numbers by digests of texts and pictures: 24 bytes per place of a table of fixed width.

A dict of texts takes 150 to 250 bytes per entry, which four million URLs multiply to gigabytes.
"""

from __future__ import annotations

import hashlib
import struct
from array import array

PAIR = struct.Struct("=QQ")  # the 16 bytes of a digest
FULL = 0.7  # of the places; beyond, the table is doubled
EMPTY = -1


def digest_of(text: str) -> bytes:
    """16 bytes: among 10^8 texts the probability that any two have the same is about 10^-23."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Digests:
    """A whole number >= 0 per digest, by open addressing with linear probing."""

    def __init__(self, places: int = 2**10, kind: str = "q"):
        """`kind` is the type code of the numbers: "b" for up to 127, in 17 bytes per place."""
        self.count, self.mask = 0, places - 1
        self.heads, self.tails = array("Q", bytes(8 * places)), array("Q", bytes(8 * places))
        self.numbers = array(kind, [EMPTY]) * places

    def __len__(self) -> int:
        return self.count

    def get(self, digest: bytes) -> int:
        """The number of a digest, -1 if it has none."""
        return self.numbers[self._place(*PAIR.unpack(digest))]

    def put(self, digest: bytes, number: int) -> None:
        """Set the number of a digest, also where it has one."""
        head, tail = PAIR.unpack(digest)
        self._put(head, tail, number)
        if self.count > FULL * (self.mask + 1):
            self._double()

    def _put(self, head: int, tail: int, number: int) -> None:
        place = self._place(head, tail)
        self.count += self.numbers[place] == EMPTY
        self.heads[place], self.tails[place], self.numbers[place] = head, tail, number

    def _place(self, head: int, tail: int) -> int:
        """Where the digest is, or would be."""
        place, numbers = head & self.mask, self.numbers
        while numbers[place] != EMPTY and (self.heads[place] != head or self.tails[place] != tail):
            place = (place + 1) & self.mask
        return place

    def _double(self) -> None:
        larger = Digests(2 * (self.mask + 1), self.numbers.typecode)
        for head, tail, number in zip(self.heads, self.tails, self.numbers):
            if number != EMPTY:
                larger._put(head, tail, number)
        self.__dict__ = larger.__dict__

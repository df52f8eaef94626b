"""What becomes of pictures that are decoded, counted with an example of each kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

# (key, pixels, or the reason why there are none, what was mended or converted: see `pixels.decode`)
Decoded = list[tuple[str, np.ndarray | str, set[str]]]


@dataclass
class Outcomes:
    """What became of many pictures: counts, and the key of the first picture of each count."""

    dropped: dict[str, int] = field(default_factory=dict)  # by reason
    noted: dict[str, int] = field(default_factory=dict)  # decoded ones, by what was done to them
    examples: dict[str, str] = field(default_factory=dict)  # a key in the image store

    def drop(self, reason: str, key: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.examples.setdefault(reason, key)

    def note(self, what: str, key: str) -> None:
        self.noted[what] = self.noted.get(what, 0) + 1
        self.examples.setdefault(what, key)

    def kept(self, chunks: Iterable[Decoded]) -> Iterator[tuple[str, np.ndarray]]:
        """(key, pixels) of the pictures that were decoded; counts what became of all."""
        for chunk in chunks:
            for key, pixels, notes in chunk:
                if isinstance(pixels, str):
                    self.drop(pixels, key)
                    continue
                for note in sorted(notes):
                    self.note(note, key)
                yield key, pixels

    def add(self, later: Outcomes) -> None:
        """Adds what became of later pictures."""
        for mine, theirs in ((self.dropped, later.dropped), (self.noted, later.noted)):
            for what, count in theirs.items():
                mine[what] = mine.get(what, 0) + count
        for what, key in later.examples.items():
            self.examples.setdefault(what, key)

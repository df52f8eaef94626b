"""What was noticed while files were read: counts, each with one example."""

from __future__ import annotations

from mufin.errors import shown

LONGEST = 200  # characters of an example; it may begin with the path of a file


class Notes:
    """Counts of what was noticed, by a short text, each with the first example of it."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, str] = {}

    def add(self, what: str, example: object = None, count: int = 1) -> None:
        """Count `what`, a plural noun phrase such as `related ids not in the catalog`."""
        if count:
            self.counts[what] = self.counts.get(what, 0) + count
            if example is not None:
                self.examples.setdefault(what, shown(example, LONGEST))

    def sentences(self) -> list[str]:
        """`related ids not in the catalog: 200, such as '00015'` of each, as they occurred."""
        return [
            f"{what}: {count}"
            + (f", such as {self.examples[what]}" if what in self.examples else "")
            for what, count in self.counts.items()
        ]

    def facts(self) -> dict[str, dict]:
        """{what: {count, example}} for metrics/download.json."""
        return {
            what: {"count": count}
            | ({"example": self.examples[what]} if what in self.examples else {})
            for what, count in self.counts.items()
        }

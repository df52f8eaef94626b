"""Answers to the lines of `mufin predict`, as tables with a row per line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from mufin.commands.loading import Asks
from mufin.commands.predict_lines import Line, Reader
from mufin.commands.predict_parts import SCHEMA
from mufin.errors import MufinError, sentence
from mufin.serving.query import NewProduct, Query, QueryError

HELD = 2**28  # bytes of pictures at once, about
SAID = 10  # bad lines that are named

Group = list[tuple[Line, tuple[bytes, ...]]]  # lines with the bytes of their pictures


def groups(reader: Reader, lines: Iterable[Line]) -> Iterator[Group]:
    """The lines with their pictures; the next group once the pictures of one have `HELD` bytes."""
    group: Group = []
    held = 0
    for line in lines:
        group.append(reader.pictures(line))
        held += sum(map(len, group[-1][1]))
        if held >= HELD:
            yield group
            group, held = [], 0
    yield group


class Answering:
    """Tables of answers to lines of the file `source`; bad lines raise, unless `skip`."""

    def __init__(self, recommender: Asks, source: Path, k: int, skip: bool):
        self.recommender, self.source, self.k, self.skip = recommender, source, k, skip
        self.refused: list[str] = []  # what is wrong with the bad lines so far

    def table(self, groups: Iterable[Group]) -> pa.Table:
        """A row per line; raises MufinError for a bad one, unless these are skipped."""
        rows = [row for group in groups for row in self._rows(group)]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _query(self, line: Line, pictures: tuple[bytes, ...]) -> Query | None:
        if line.problem:
            return None
        if line.uid is not None:
            return Query(uids=(line.uid,), k=self.k)
        return Query(new=NewProduct(line.title, pictures, line.category, line.texts), k=self.k)

    def _rows(self, group: Group) -> Iterator[dict]:
        asked = [(line, self._query(line, pictures)) for line, pictures in group]
        results = iter(self.recommender.answers([query for _, query in asked if query]))
        for line, query in asked:
            result = QueryError("", line.problem) if query is None else next(results)
            if isinstance(result, QueryError):
                self._refuse(line.refused(str(result)))
                yield {"id": line.id}
                continue
            yield {
                "id": line.id,
                "labels": [answer.uid for answer in result],
                "score": [answer.score for answer in result],
                "fallback": any(answer.fallback for answer in result),
            }

    def _refuse(self, line: Line) -> None:
        text = bad(self.source, line)
        if not self.skip:
            raise MufinError(f"{text}, or take --bad-lines skip")
        self.refused.append(text)


class Skipped:
    """Names the first bad lines on stderr."""

    def __init__(self) -> None:
        self.said = 0

    def tell(self, texts: list[str]) -> None:
        for text in texts[: SAID - self.said]:
            print(f"skipped: {sentence(text)}", file=sys.stderr, flush=True)
            self.said += 1


def bad(source: Path, line: Line) -> str:
    return f"{source} line {line.number}: {line.problem}"

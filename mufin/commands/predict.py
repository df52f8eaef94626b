"""`mufin predict`: answers for a file of products, in parts that survive a kill."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from mufin.commands.console import say
from mufin.commands.loading import Asks, load, uids_of
from mufin.commands.predict_lines import Line, Reader, Survey
from mufin.commands.predict_parts import SCHEMA, Parts, is_predictions
from mufin.errors import MufinError, sentence
from mufin.outputs import checked_target
from mufin.params import Params, load_params
from mufin.progress import progress
from mufin.serving.query import NewProduct, Query, QueryError

HELD = 2**28  # bytes of pictures at once, about
SAID = 10  # bad lines that are named


def predict(
    source: Path, out: Path, *, home: Path, k: int, batch: int, skip: bool, force: bool
) -> None:
    target = checked_target(out, is_predictions, "a file of this command", force)
    settings = load_params(home / "params.yaml")
    reader = Reader(source, frozenset(uids_of(home)), settings.download.max_bytes)
    survey = reader.survey()
    if survey.bad and not skip:
        raise MufinError(f"{_bad(source, survey.bad[0])}, or take --bad-lines skip")
    if not survey.count:
        raise MufinError(f"{source} has no lines; write one JSON object per product")
    recommender = load(home)
    run = _run(survey, recommender, settings, k, batch)
    with Parts(target, run, -(-survey.count // batch), skip) as parts:
        if parts.has_output():
            parts.remove()
            say(f"{out} has the answers to this file already, by this model")
            return
        _make(parts, _Answering(recommender, reader, k, skip), batch)
        rows, without = parts.join()
    bad = f"; {without:,} bad lines have a row without answers" if without else ""
    say(f"{out} has {rows:,} rows{bad}")


def _run(survey: Survey, recommender: Asks, settings: Params, k: int, batch: int) -> str:
    """What decides the answers, as 64 hex digits: input, pictures, model, settings, version."""
    said = (
        survey.digest,
        recommender.info()["id"],
        repr(settings),
        (k, batch),
        version("mufin-pipeline"),
    )
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _make(parts: Parts, answering: _Answering, batch: int) -> None:
    """Writes the parts that are missing."""
    done = parts.done()
    batches = answering.reader.batches(batch, done)
    numbers = range(done, parts.count)
    if done:
        text = f"continues after {done:,} of {parts.count:,} parts, which are done"
        print(text, file=sys.stderr, flush=True)
    for number in progress(numbers, "predict", "batches", total=parts.count, start=done):
        parts.write(number, answering.table(next(batches)))


class _Answering:
    """Tables of answers to lines, with a limit on the pictures held at once."""

    def __init__(self, recommender: Asks, reader: Reader, k: int, skip: bool):
        self.recommender, self.reader, self.k, self.skip = recommender, reader, k, skip
        self.said = 0  # bad lines named so far

    def table(self, lines: list[Line]) -> pa.Table:
        """A row per line; raises MufinError for a bad one, unless these are skipped."""
        rows = [row for group in self._groups(lines) for row in self._rows(group)]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _groups(self, lines: list[Line]) -> Iterator[list[tuple[Line, Query | None]]]:
        """Lines with their queries, None for a bad one; the next group once the pictures of one
        have `HELD` bytes.
        """
        group: list[tuple[Line, Query | None]] = []
        held = 0
        for line in lines:
            line, pictures = self.reader.pictures(line)
            group.append((line, None if line.problem else self._query(line, pictures)))
            held += sum(map(len, pictures))
            if held >= HELD:
                yield group
                group, held = [], 0
        yield group

    def _query(self, line: Line, pictures: tuple[bytes, ...]) -> Query:
        if line.uid is not None:
            return Query(uids=(line.uid,), k=self.k)
        return Query(new=NewProduct(line.title, pictures, line.category), k=self.k)

    def _rows(self, group: list[tuple[Line, Query | None]]) -> Iterator[dict]:
        results = iter(self.recommender.answers([query for _, query in group if query]))
        for line, query in group:
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
        text = _bad(self.reader.source, line)
        if not self.skip:
            raise MufinError(f"{text}, or take --bad-lines skip")
        self.said += 1
        if self.said <= SAID:
            print(f"skipped: {sentence(text)}", file=sys.stderr, flush=True)


def _bad(source: Path, line: Line) -> str:
    return f"{source} line {line.number}: {line.problem}"

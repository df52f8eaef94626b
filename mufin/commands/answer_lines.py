"""Answers as text: one line of JSON per question, or a table for a person."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mufin.serving.answers import Answer, Descriptor
from mufin.serving.query import Query

ANSWER = ["uid", "title", "recommended"]  # the first names in a line of answers
MORE = {"basket", "fallback", "reason"}  # the others
LINE = 2**24  # bytes of the first line of a file of answers, at most
NOTHING = "no other product may be an answer"  # the `reason` in a line without answers
LIMITS = "; look at --where, --candidates and --exclude"
REASONS = 3  # that a table shows per answer


@dataclass(frozen=True, slots=True)
class Answered:
    """A question and its answers."""

    query: Query
    title: str  # of the one product of the catalog that is asked about; '' for others
    answers: list[Answer]


def line_of(answered: Answered, ascii: bool) -> str:
    """JSON on one line; a terminal that prints it obeys no control character of a title."""
    query = answered.query
    uid = query.uids[0] if len(query.uids) == 1 and query.new is None else None
    title = query.new.title if query.new else answered.title
    best = [_json(answer, query.reasons) for answer in answered.answers]
    line: dict[str, object] = dict(zip(ANSWER, (uid, title, best)))
    if query.uids and uid is None:
        line["basket"] = list(query.uids)
    if any(answer.fallback for answer in answered.answers):
        line["fallback"] = True
    if not best:
        line["reason"] = _reason(query)
    text = json.dumps(line, ensure_ascii=ascii)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def is_answers(path: Path) -> bool:
    """Whether the file was written by `mufin recommend --out`."""
    with open(path, "rb") as file:
        first = file.readline(LINE)
    try:
        content = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(content, dict)
        and list(content)[:3] == ANSWER
        and set(content) <= MORE | {*ANSWER}
    )


def table_of(answered: Answered) -> Iterator[str]:
    """Lines for a terminal: the products asked about, then an answer per line, best first."""
    query, width = answered.query, shutil.get_terminal_size().columns
    asked = [*query.uids, *(["a new product"] if query.new else [])]
    title = query.new.title if query.new else answered.title
    yield _cut("  ".join([", ".join(asked), *([title] if title else [])]), width)
    if not answered.answers:
        yield f"  none: {_reason(query)}"
    if any(answer.fallback for answer in answered.answers):
        yield "  the most popular ones, as nothing of the product can be compared:"
    longest = max((len(answer.uid) for answer in answered.answers), default=0)
    for rank, answer in enumerate(answered.answers, 1):
        head = f"{rank:4}  {answer.score:8.4f}  {answer.uid:{longest}}  "
        yield _cut(f"{head}{answer.title}", width)
        for reason in answer.why[:REASONS]:
            pair = f"{_name(reason.query)} -> {_name(reason.answer)}"
            yield _cut(f"{'':16}{reason.weight:.2f} {reason.by}: {pair}", width)
    yield ""


def _reason(query: Query) -> str:
    """Why there is no answer."""
    limited = query.where or query.candidates is not None or query.exclude
    return f"{NOTHING}{LIMITS if limited else ''}"


def _json(answer: Answer, why: bool) -> dict[str, object]:
    out: dict[str, object] = {
        "uid": answer.uid,
        "title": answer.title,
        "score": round(answer.score, 4),
    }
    if why:
        out["parts"] = {name: round(part, 4) for name, part in answer.parts.items()}
        out["why"] = [
            {
                "query": reason.query.content(),
                "answer": reason.answer.content(),
                "weight": round(reason.weight, 4),
                "by": reason.by,
            }
            for reason in answer.why
        ]
    return out


def _name(descriptor: Descriptor) -> str:
    """Such as `B000000001 picture 2`, and of a text its first words."""
    number = f" {descriptor.number + 1}" if descriptor.kind in ("picture", "text") else ""
    words = f' "{descriptor.text}"' if descriptor.text else ""
    return f"{descriptor.uid or 'new product'} {descriptor.kind}{number}{words}"


def _cut(text: str, width: int) -> str:
    line = " ".join(text.split("\n"))
    return line if len(line) <= width else f"{line[: max(width - 3, 1)]}..."

"""`mufin recommend`: questions on the command line, answers as lines of JSON or as a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import typer

from mufin.artifacts.publication import publish
from mufin.commands.answer_lines import Answered, is_answers, line_of, table_of
from mufin.commands.conditions import parsed, where_of
from mufin.commands.console import prints_utf8, say
from mufin.commands.loading import Asks, load, uids_of
from mufin.errors import MufinError, shown
from mufin.outputs import checked_target
from mufin.params import load_params
from mufin.serving.query import NewProduct, Query, QueryError
from mufin.settings_file import regular_bytes

ALWAYS = 1000  # a number of answers that may be asked for, however few labels there are
TOGETHER = 1024  # questions that are asked at once
LARGEST = 2**28  # bytes of a file of candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The words of the command line."""

    uids: Sequence[str] = ()
    every: bool = False
    basket: bool = False
    title: str = ""
    texts: Sequence[str] = ()
    images: Sequence[Path] = ()
    category: Sequence[str] = ()
    k: int = 10
    where: Sequence[str] = ()
    avoid: Sequence[str] = ()
    exclude: Sequence[str] = ()
    candidates: Path | None = None
    fold: bool = False
    why: bool = False
    json: bool = False
    out: Path | None = None
    force: bool = False
    home: Path = Path(".")

    @property
    def new(self) -> bool:
        """Whether a product is described that is not in the catalog."""
        return bool(self.title or self.texts or self.images or self.category)


def recommend(request: Request) -> None:
    _check(request)
    out = request.out
    target = out and checked_target(out, is_answers, "a file of answers", request.force)
    settings = load_params(request.home / "params.yaml")
    conditions = parsed(request.where)
    new = None
    if request.new:
        pictures = tuple(_picture(path, settings.download.max_bytes) for path in request.images)
        category, texts = tuple(request.category), tuple(request.texts)
        new = NewProduct(request.title, pictures, category, texts)
    candidates = None if request.candidates is None else _candidates(request.candidates)
    recommender = load(request.home)
    info = recommender.info()
    _check_k(request.k, info["labels"])
    same = Query(
        avoid=tuple(request.avoid),
        k=request.k,
        candidates=candidates,
        exclude=tuple(request.exclude),
        where=where_of(conditions, info["attributes"]),
        fold=request.fold,
        reasons=request.why,
    )
    _write(request, _answered(recommender, _queries(request, same, new)), target)


def _check(request: Request) -> None:
    """Raises MufinError for words that do not go together."""
    if not (request.uids or request.every or request.new):
        raise MufinError(
            "no product is given; give product ids, or --all, --title, --text or --image"
        )
    if request.every and (request.uids or request.basket):
        other = "--basket" if request.basket else shown(request.uids[0])
        raise MufinError(f"--all and {other} are given; give one of them")
    for name, text in (
        ("--title", request.title),
        *(("--text", text) for text in request.texts),
        *(("--category", name) for name in request.category),
        *(("a product id", uid) for uid in (*request.uids, *request.avoid, *request.exclude)),
    ):
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise MufinError(f"{name} is {shown(text)}, which is not UTF-8; write it in UTF-8")


def _check_k(k: int, labels: int) -> None:
    if k > (most := max(labels, ALWAYS)):
        raise MufinError(
            f"--k is {shown(k)}; it must be at most {most:,}, there are no more labels"
        )


def _queries(request: Request, same: Query, new: NewProduct | None) -> Iterator[Query]:
    """One per product, or one for all in a basket."""
    if request.basket:
        yield replace(same, uids=tuple(request.uids), new=new)
        return
    for uid in uids_of(request.home) if request.every else request.uids:
        yield replace(same, uids=(uid,))
    if new is not None:
        yield replace(same, new=new)


def _answered(recommender: Asks, queries: Iterator[Query]) -> Iterator[Answered]:
    """The answers to each question; raises the first QueryError before any answer of its batch."""
    for part in _batches(queries, TOGETHER):
        results = recommender.answers(part)
        for result in results:
            if isinstance(result, QueryError):
                raise result
        for query, result in zip(part, results):
            assert isinstance(result, list)
            product = recommender.product(query.uids[0]) if len(query.uids) == 1 else None
            yield Answered(query, product.title if product else "", result)


def _batches(queries: Iterator[Query], size: int) -> Iterator[list[Query]]:
    while part := list(islice(queries, size)):
        yield part


def _write(request: Request, answers: Iterator[Answered], target: Path | None) -> None:
    """To the file, or to standard output: a table on a terminal, else lines of JSON."""
    if target is not None:
        with publish(target) as scratch, open(scratch, "w", encoding="utf-8") as file:
            file.writelines(f"{line_of(answered, ascii=False)}\n" for answered in answers)
    elif request.json or not sys.stdout.isatty():
        ascii = not prints_utf8()
        for answered in answers:
            typer.echo(line_of(answered, ascii))
    else:
        for answered in answers:
            say("\n".join(table_of(answered)))


def _picture(path: Path, most: int) -> bytes:
    """The bytes of a picture file; raises MufinError where it is none, or larger than `most`."""
    return _bytes(path, most, "picture file")


def _candidates(path: Path) -> tuple[str, ...]:
    """The uids in a file, one per line; empty lines are passed over."""
    content = _bytes(path, LARGEST, "file of product ids")
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MufinError(f"{path} line {line} is not UTF-8; save it as UTF-8") from None
    uids = tuple(dict.fromkeys(uid for line in lines if (uid := line.strip())))
    if not uids:
        raise MufinError(f"{path} has no product ids; write one per line")
    return uids


def _bytes(path: Path, most: int, what: str) -> bytes:
    try:
        return regular_bytes(path, most)
    except FileNotFoundError:
        raise MufinError(f"{path} does not exist; give the path of a {what}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        raise MufinError(f"{path} cannot be read: {reason}; give another {what}") from None

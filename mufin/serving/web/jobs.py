"""What waits for the device thread: questions, changes of products, and all else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from mufin.serving.answers import Answer, Product
from mufin.serving.live_product import LiveProduct
from mufin.serving.query import Query, QueryError
from mufin.serving.web.refusals import Refusal, late
from mufin.serving.web.service import Service

Products = dict[str, Product | None]  # of all answers of a question, by uid
Result = tuple[list[Answer], Products] | QueryError | Refusal


def settle(future: Future, result: Any) -> None:
    """Give a future its result, or its error; nobody may wait for it any more."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def _begun(future: Future, deadline: float) -> bool:
    """Whether a job is still worth its time: not cancelled, and not late, which the future says."""
    if not future.set_running_or_notify_cancel():
        return False
    if time.monotonic() > deadline:
        settle(future, late())
        return False
    return True


@dataclass(eq=False)
class Asked:
    """The questions of one request. The future gets their results and the id of the model."""

    queries: Sequence[Query]
    deadline: float  # of time.monotonic(); what begins later is dropped
    future: Future[tuple[list[Result], str]] = field(default_factory=Future)
    results: list[Result] = field(default_factory=list)
    taken: int = 0  # questions that are in a batch

    @property
    def size(self) -> int:
        return len(self.queries) - self.taken

    def dropped(self) -> bool:
        """Whether nobody waits for the answers any more. Once begun, all are answered."""
        return not self.taken and not _begun(self.future, self.deadline)

    def take(self, most: int) -> list[Query]:
        """The next questions, at most so many."""
        begin, self.taken = self.taken, min(self.taken + most, len(self.queries))
        return list(self.queries[begin : self.taken])

    def add(self, results: list[Result], model: str) -> None:
        self.results += results
        if len(self.results) == len(self.queries):
            settle(self.future, (self.results, model))


@dataclass(frozen=True)
class Changed:
    """What came of a change."""

    upserted: int
    deleted: int  # of products that were there
    products: list[Product | None]  # the upserted ones as they are now


@dataclass(eq=False)
class Change:
    """Products of one request to add, replace or delete."""

    upserts: Sequence[LiveProduct]
    deletes: Sequence[str]
    deadline: float
    future: Future[Changed] = field(default_factory=Future)
    deleted: int = 0  # of `deletes`, those that were there
    size = 1

    def dropped(self) -> bool:
        return not _begun(self.future, self.deadline)


@dataclass(eq=False)
class Look:
    """A function of the recommender: reads a product, a picture, or what the model is."""

    function: Callable[[Service], Any]
    deadline: float
    future: Future[Any] = field(default_factory=Future)
    size = 1

    def dropped(self) -> bool:
        return not _begun(self.future, self.deadline)


@dataclass(eq=False)
class Switch:
    """A loaded recommender, to answer from the next batch on. The future gets its `info`."""

    service: Service
    future: Future[dict] = field(default_factory=Future)
    size = 0  # it waits however long the queue is

    def dropped(self) -> bool:
        return False


Job = Asked | Change | Look | Switch

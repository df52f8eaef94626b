"""The device thread: the only one that calls the recommender.

Jobs run in the order in which they came. Questions that wait at the same time are one call, and
changes of products that wait at the same time are one transaction.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from mufin.serving.live_product import LiveProduct
from mufin.serving.query import Query, QueryError
from mufin.serving.web.changes import Applied, change_all
from mufin.serving.web.jobs import Asked, Change, Changed, Job, Look, Result, Switch, settle
from mufin.serving.web.limits import Settings
from mufin.serving.web.metrics import Metrics
from mufin.serving.web.refusals import Refusal, busy, failed
from mufin.serving.web.service import Keeper, Service

logger = logging.getLogger("mufin.serve")
Batch = list[tuple[Asked, list[Query]]]


class Engine:
    """A bounded queue and the thread that works it off; `start` it, and `stop` it in the end."""

    def __init__(self, settings: Settings, keeper: Keeper, metrics: Metrics):
        self.settings, self.keeper, self.metrics = settings, keeper, metrics
        self.service: Service | None = None  # None until the first one is loaded
        self.model = ""  # its id
        self.jobs: deque[Job] = deque()
        self.waiting = 0  # questions and changes in `jobs`
        self.expected = 0  # requests whose questions will come; of the event loop alone
        self.draining = False  # /readyz says 503, so that others send no more questions here
        self.stopping = False  # nothing more is accepted
        self.since: Applied | None = None  # changes since a model began to load, if one does
        self.condition = threading.Condition()
        self.thread = threading.Thread(target=self._work, name="device", daemon=True)
        metrics.queue.set_function(lambda: self.waiting)

    def start(self) -> None:
        self.thread.start()

    def stop(self, seconds: float | None = None) -> None:
        """Work off what was accepted, and end the thread; takes nothing more."""
        with self.condition:
            self.draining = self.stopping = True
            self.condition.notify()
        self.thread.join(seconds)

    @property
    def ready(self) -> bool:
        return self.service is not None and not self.draining and self.thread.is_alive()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """A block that reads a question: a batch waits for it for a moment."""
        self.expected += 1
        try:
            yield
        finally:
            self.expected -= 1

    def ask(self, queries: Sequence[Query], deadline: float) -> Future:
        """(results, id of the model): a result per question; all of them by the same model."""
        return self._put(Asked(queries, deadline))

    def change(
        self, upserts: Sequence[LiveProduct], deletes: Sequence[str], deadline: float
    ) -> Future[Changed]:
        """`Changed`, after the changes are kept and applied."""
        return self._put(Change(upserts, deletes, deadline))

    def look(self, function: Callable[[Service], Any], deadline: float) -> Future:
        """What a function of the recommender returns."""
        return self._put(Look(function, deadline))

    def record(self) -> None:
        """From now on, keep the changes that are applied, for the model that `switch` gets."""
        self.since = []

    def forget(self) -> None:
        """Keep them no longer: there is no such model."""
        self.since = None

    def switch(self, service: Service) -> Future[dict]:
        """Its `info`, once it answers instead of the present one."""
        return self._put(Switch(service))

    def _put(self, job: Job) -> Future:
        """Raises Refusal (503) if the queue is full, or nothing is loaded, or the server stops."""
        with self.condition:
            if self.stopping:
                raise busy("the server stops; ask another one, or try again later")
            if self.service is None and not isinstance(job, Switch):
                raise busy("the model is being loaded; try again later")
            if self.waiting + job.size > self.settings.max_queue and job.size:
                raise busy(f"{self.waiting} questions wait already; try again later")
            self.jobs.append(job)
            self.waiting += job.size
            self.condition.notify()
        return job.future

    def _work(self) -> None:
        while True:
            with self.condition:
                while not self.jobs and not self.stopping:
                    self.condition.wait()
                if not self.jobs:
                    return
                first = self.jobs[0]
            if isinstance(first, Asked):
                self._answer(self._batch())
            elif isinstance(first, Change):
                self._change(self._changes())
            else:
                self._pop()
                self._other(first)

    def _pop(self) -> Job:
        with self.condition:
            job = self.jobs.popleft()
            self.waiting -= job.size
        return job

    def _batch(self) -> Batch:
        """The questions at the head of the queue; waits a moment for those that are being read."""
        end = time.monotonic() + self.settings.max_wait_ms / 1000
        batch: Batch = []
        free = self.settings.max_batch
        with self.condition:
            while True:
                while free and self.jobs and isinstance(asked := self.jobs[0], Asked):
                    free -= self._take(asked, free, batch)
                left = end - time.monotonic()
                full = not free or self.jobs or self.stopping
                if full or not batch or not self.expected or left <= 0:
                    return batch
                self.condition.wait(left)

    def _take(self, asked: Asked, free: int, batch: Batch) -> int:
        """Move questions of the first job into the batch, and return how many."""
        if asked.dropped():
            self.waiting -= asked.size
            self.jobs.popleft()
            return 0
        queries = asked.take(free)
        batch.append((asked, queries))
        self.waiting -= len(queries)
        if not asked.size:
            self.jobs.popleft()
        return len(queries)

    def _changes(self) -> list[Change]:
        """All changes at the head of the queue."""
        group: list[Change] = []
        with self.condition:
            while self.jobs and isinstance(change := self.jobs[0], Change):
                self.jobs.popleft()
                self.waiting -= 1
                if not change.dropped():
                    group.append(change)
        return group

    def _answer(self, batch: Batch) -> None:
        queries = [query for _, some in batch for query in some]
        if not queries:
            return
        with self._busy("answers"):
            results = self._results(queries)
        for asked, some in batch:
            asked.add(results[: len(some)], self.model)
            del results[: len(some)]

    def _results(self, queries: list[Query]) -> list[Result]:
        """A result per question. One that makes the recommender fail harms no other one."""
        service = self.service
        assert service is not None
        self.metrics.batches.observe(len(queries))
        try:
            answers = service.answers(queries)
            if len(answers) != len(queries):
                raise RuntimeError(f"{len(queries)} questions, but {len(answers)} results")
            return [self._with_products(service, result) for result in answers]
        except Exception:
            if len(queries) > 1:
                return [self._results([query])[0] for query in queries]
            logger.exception("a question failed")
            return [failed()]

    def _with_products(self, service: Service, result: list | QueryError) -> Result:
        if isinstance(result, QueryError):
            return result
        self.metrics.answers.inc(len(result))
        self.metrics.fallbacks.inc(sum(answer.fallback for answer in result))
        return result, {answer.uid: service.product(answer.uid) for answer in result}

    def _change(self, group: list[Change]) -> None:
        assert self.service is not None
        with self._busy("changes"):
            change_all(group, self.service, self.keeper, lambda: self.since)
            self._count_live()

    def _other(self, job: Job) -> None:
        if job.dropped():
            return
        with self._busy("switch" if isinstance(job, Switch) else "look"):
            try:
                settle(job.future, self._done(job))
            except (QueryError, Refusal) as error:
                settle(job.future, error)
            except Exception as error:
                logger.exception("a job failed")
                settle(job.future, error if isinstance(job, Switch) else failed())

    def _done(self, job: Job) -> Any:
        if isinstance(job, Look):
            assert self.service is not None
            return job.function(self.service)
        assert isinstance(job, Switch)
        for upserts, deletes in self.since or []:
            job.service.delete(deletes)
            job.service.upsert(upserts)
        info = job.service.info()
        self.since = None
        self.service, self.model = job.service, str(info["id"])
        self.metrics.model.info({"id": self.model})
        self._count_live()
        return info

    def _count_live(self) -> None:
        assert self.service is not None
        try:
            self.metrics.live.set(self.service.info()["live"])
        except Exception:
            logger.exception("the live products could not be counted")

    @contextmanager
    def _busy(self, work: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.metrics.device.labels(work).inc(time.monotonic() - start)

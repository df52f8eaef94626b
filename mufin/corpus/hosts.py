"""Hosts that are asked: how many requests at once, pauses, hosts given up, and a lost network."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator

from mufin.corpus.reasons import GIVEN_UP, WAITS, Failed, Refused, Unreachable
from mufin.errors import MufinError, shown

LONGEST_PAUSE = 600.0  # seconds that a host may ask for in total between two good answers
FAILURES = 5  # references that fail one after the other until their host is given up
TRIAL = 60.0  # seconds until one request may try again a host that was given up
LOST = 50  # references in a row without a connection until other hosts are tried
PROBES = 20  # other hosts that are tried then; if none can be reached, the network is lost
LOOK = 60.0  # seconds between two such looks

AT_ONCE = contextlib.nullcontext()

Place = tuple[str, int]  # the name of a host and a port


class GivenUp(Refused):
    """The request was not made, because the host does not answer."""


class Host:
    """Limits the requests to one host: `per_host` at once, none in a pause that it asked for."""

    def __init__(self, per_host: int):
        self.slots, self.lock = threading.Semaphore(per_host), threading.Lock()
        self.until = 0.0  # end of the pause, on the monotonic clock
        self.paused = 0.0  # seconds of pauses since the last good answer

    def pause(self, seconds: float) -> None:
        with self.lock:
            now = time.monotonic()
            # Pauses of several requests overlap; only what one adds to the end counts.
            self.paused += max(now + seconds - max(self.until, now), 0.0)
            self.until = max(self.until, now + seconds)

    def wait(self) -> None:
        """Return when the pause is over; raise Refused if the host has asked for too many."""
        if self.paused > LONGEST_PAUSE:
            raise Refused(WAITS)
        while (left := self.until - time.monotonic()) > 0:
            time.sleep(left)


class Breaker:
    """Gives up one port of a host after FAILURES references in a row without an answer.

    After TRIAL seconds, one request tries it again. An answer ends the giving up.
    """

    def __init__(self) -> None:
        self.failures = 0  # references that failed since the last answer, after all their tries
        self.unreachable = False  # whether the last of them had no connection
        self.resume = 0.0  # when the next trial is due, on the monotonic clock
        self.lock, self.trial = threading.Lock(), threading.Lock()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """A block with one request; raises GivenUp in its place if the host is given up.

        While a trial is under way, other requests wait for its outcome.
        """
        if self.failures >= FAILURES:
            with self.trial:
                if self.failures >= FAILURES:
                    if time.monotonic() < self.resume:
                        raise GivenUp(GIVEN_UP)
                    try:
                        yield
                    finally:
                        self.resume = time.monotonic() + TRIAL
                    return
        yield

    def answered(self) -> None:
        self.failures = 0

    def failed(self, unreachable: bool) -> None:
        with self.lock:
            self.failures, self.unreachable = self.failures + 1, unreachable
            self.resume = time.monotonic() + TRIAL


class Network:
    """All hosts of a run, and whether there is a network at all."""

    def __init__(self, per_host: int, reachable: Callable[[Place], bool]):
        """`reachable` says whether a connection to a place can be made now."""
        self.per_host, self.reachable = per_host, reachable
        self.places: list[Place] = []  # those that the run will ask, as far as known
        self.hosts: dict[str, Host] = {}
        self.breakers: dict[Place, Breaker] = {}
        self.lock = threading.RLock()
        self.in_a_row = 0  # references without a connection since the last answer of any host
        self.failing: set[Place] = set()  # their places
        self.last: Place | None = None  # that answered
        self.next_look = 0.0  # on the monotonic clock
        self.lost = ""  # the sentence that ends the run

    @contextlib.contextmanager
    def request(self, place: Place) -> Iterator[None]:
        """A block with one request, when it is its turn; keeps the books of its outcome.

        Raises Refused in its place if the host is given up, and MufinError if the network is lost.
        """
        if self.lost:
            raise MufinError(self.lost)
        host, breaker = self._of(place)
        try:
            with host.slots, breaker.request() if breaker.failures >= FAILURES else AT_ONCE:
                host.wait()
                yield from self._noted(place, host, breaker)
        except GivenUp:
            if breaker.unreachable:
                self._unreachable(place)
            raise

    def answered(self, place: Place) -> None:
        """A host sent something: there is a network."""
        if self.last == place and not self.in_a_row and not self.failing:
            return  # as most times
        with self.lock:
            self.in_a_row, self.last = 0, place
            self.failing.clear()

    def failed(self, error: Failed) -> None:
        """A reference failed for good, after all its tries."""
        if error.place is not None:
            self._of(error.place)[1].failed(isinstance(error, Unreachable))
            if isinstance(error, Unreachable):
                self._unreachable(error.place)

    def try_again(self) -> None:
        """Hosts that were given up get another trial at once."""
        for breaker in self.breakers.values():
            breaker.resume = 0.0

    def _of(self, place: Place) -> tuple[Host, Breaker]:
        host, breaker = self.hosts.get(place[0]), self.breakers.get(place)
        if host is None or breaker is None:
            with self.lock:
                host = self.hosts.setdefault(place[0], Host(self.per_host))
                breaker = self.breakers.setdefault(place, Breaker())
        return host, breaker

    def _noted(self, place: Place, host: Host, breaker: Breaker) -> Iterator[None]:
        """Part of `request`: notes the outcome of the block for the next requests."""
        try:
            yield
        except Failed as error:
            error.place = place
            host.pause(error.after)  # for all requests to this host, not for this URL alone
            raise
        except Refused:  # an answer too
            host.paused = 0.0
            breaker.answered()
            raise
        host.paused = 0.0
        breaker.answered()

    def _unreachable(self, place: Place) -> None:
        with self.lock:
            self.in_a_row += 1
            self.failing.add(place)
            if self.in_a_row >= LOST and time.monotonic() >= self.next_look and not self.lost:
                self._look(place)

    def _look(self, place: Place) -> None:
        """Decide between some dead hosts and a lost network: try hosts that have not failed.

        Without this, a run would end at a part of the catalog that has dead hosts only, and the
        next run at the same place.
        """
        others = [other for other in self.places if other not in self.failing]
        probes = random.sample(others, min(PROBES, len(others)))
        if self.last is not None and self.last not in self.failing:
            probes.insert(0, self.last)
        if self._one_reachable(probes):
            self.in_a_row, self.next_look = 0, time.monotonic() + LOOK
            return
        self.lost = (
            f"{self.in_a_row} image references in a row got no connection (the last one to "
            f"{shown(place[0], 60)}), and no other host of the catalog can be reached: the network "
            "is lost; what was fetched is kept: run the same command to continue"
        )

    def _one_reachable(self, places: list[Place]) -> bool:
        """Whether a connection to one of them can be made; all are tried at once."""
        answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for place in places:
            thread = threading.Thread(
                target=lambda place: answers.put(self.reachable(place)), args=(place,), daemon=True
            )
            thread.start()
        return any(answers.get() for _ in places)

"""Many references fetched at once."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator

from mufin.corpus.fetch import Fetcher

# Seconds in which results gather, so that the caller waits for the disk once for many of them. The
# threads go on meanwhile, as up to three references per thread are queued.
GATHER = 0.002
Result = tuple[str, bytes, str]  # reference, bytes, reason


def fetch_all(references: Iterable[str], fetcher: Fetcher, threads: int) -> Iterator[list[Result]]:
    """(reference, bytes, reason) of each reference, as they complete: lists of those that are done.

    At most 4 * threads of them are under way or waiting, which bounds the memory. Raises MufinError
    if the network is lost.
    """
    asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    answered: queue.SimpleQueue[Result | Exception] = queue.SimpleQueue()
    # Not a ThreadPoolExecutor: Python waits for its threads before it ends, after Ctrl-C too.
    for _ in range(threads):
        threading.Thread(target=_work, args=(fetcher, asked, answered), daemon=True).start()
    waiting = 0
    try:
        for reference in references:
            asked.put(reference)
            waiting += 1
            if waiting >= 4 * threads:
                done = _completed(answered)
                yield done
                waiting -= len(done)
        while waiting:
            done = _completed(answered)
            yield done
            waiting -= len(done)
    finally:
        with contextlib.suppress(queue.Empty):  # what no thread has begun is not fetched
            while True:
                asked.get_nowait()
        for _ in range(threads):
            asked.put(None)


def _work(
    fetcher: Fetcher,
    asked: queue.SimpleQueue[str | None],
    answered: queue.SimpleQueue[Result | Exception],
) -> None:
    while (reference := asked.get()) is not None:
        try:
            answered.put((reference, *fetcher.fetch(reference)))
        except Exception as error:  # raised again by the thread that waits for the results
            answered.put(error)


def _completed(answered: queue.SimpleQueue[Result | Exception]) -> list[Result]:
    """All results that are there, at least one; waits for it. Raises what a fetch raised."""
    done: list[Result] = []
    while not done or not answered.empty():
        result = answered.get()
        if not isinstance(result, Exception):
            if not done:
                time.sleep(GATHER)
            done.append(result)
        elif done:
            answered.put(result)  # for the next call: no result may be lost
            return done
        else:
            raise result
    return done

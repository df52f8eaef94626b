"""JSON lines as Arrow tables, block by block: only where the line reader would read the same.

A block that this reader does not read in the same way, such as one with a broken line, a number in
place of a text or a lone half of a surrogate pair, is for `json_rows`, which names the lines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

T = TypeVar("T")
R = TypeVar("R")
BLOCK = 2**20  # bytes of text that are parsed at once; with 2^18 and with 2^22 it takes longer
THREADS = 3  # that parse: with more cores, the one that unpacks a file is the slowest then
WAITING = 16  # results at most
STRIDE = 512  # bytes; see `_long_number`
LONG = 8  # strides of digits: Python refuses whole numbers of more than 4,300 digits


def table_of(block: bytes, schema: pa.Schema) -> pa.Table | None:
    """The columns of `schema` of a block of whole lines; None if the line reader must read it.

    Other columns are not kept, but must be JSON. The one difference: a line whose other columns are
    nested a thousand deep is read here, and is a bad row there.
    """
    block = block if block.endswith(b"\n") else block + b"\n"
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    # One object per line: `}` and `{` around a line break are never in the middle of one.
    starts = np.append(0, ends[:-1] + 1)
    if not ((text[starts] == ord("{")) & (text[ends - 1] == ord("}"))).all():
        return None
    if b"\r" in block or b"\0" in block or _long_number(text):
        return None
    try:
        if not block.isascii():
            block.decode()
        table = pj.read_json(
            pa.BufferReader(block),
            pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
            pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        table.validate(full=True)  # an escape can be half a surrogate pair
    except (pa.ArrowException, UnicodeError):
        return None
    return table.combine_chunks() if len(table) == len(ends) and table.schema == schema else None


def _long_number(text: np.ndarray) -> bool:
    """Whether there may be a run of more than 4,300 digits: every 512th byte in it is one."""
    some = text[::STRIDE]
    others = np.flatnonzero((some < ord("0")) | (some > ord("9")))
    return bool((np.diff(others, prepend=-1, append=len(some)) > LONG).any())


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """The result of `function` per item, in order.

    The items are made in one thread, their results in THREADS others, and at most WAITING results
    wait. An error is raised where its result would be. Close the iterator to stop the threads.
    """
    waiting: SimpleQueue[Future[R] | None] = SimpleQueue()
    free, stopped = threading.Semaphore(WAITING), threading.Event()

    def start() -> None:
        try:
            for item in items:
                free.acquire()
                if stopped.is_set():
                    return
                waiting.put(threads.submit(function, item))
            waiting.put(None)
        except Exception as error:
            failed: Future[R] = Future()
            failed.set_exception(error)
            waiting.put(failed)

    with ThreadPoolExecutor(1 + THREADS) as threads:
        threads.submit(start)
        try:
            while (result := waiting.get()) is not None:
                yield result.result()
                free.release()
        finally:
            stopped.set()
            free.release()

"""Pictures of the image store to pixels, by a pool of threads or processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mufin.corpus.image_store import read_pictures
from mufin.corpus.pixels import decode_all
from mufin.progress import progress

MANY = 20_000  # from this number of pictures on, processes decode instead of threads
CHUNK = 64  # pictures per task of the pool

Decoded = list[tuple[str, np.ndarray | str]]  # (key, pixels, or the reason why there are none)


def decoded(
    store: Path, keys: np.ndarray, size: int, workers: int, drops: dict[str, int]
) -> Iterator[tuple[str, np.ndarray]]:
    """(key, pixels (size, size, 3) uint8) of the pictures `keys`, in the order of the store.

    A picture that cannot be decoded, or is not in the store, is counted in `drops` by its reason.
    """
    wanted, seen = set(keys.tolist()), 0
    with _pool(workers, len(keys)) as pool:
        chunks = _mapped(pool, read_pictures(store, wanted, CHUNK), size, workers)
        total = -(-len(wanted) // CHUNK)
        for chunk in progress(chunks, "decode", f"chunks of {CHUNK} pictures", total):
            for key, pixels in chunk:
                seen += 1
                if isinstance(pixels, str):
                    drops[pixels] = drops.get(pixels, 0) + 1
                else:
                    yield key, pixels
    if seen < len(wanted):
        drops["not in the image store"] = len(wanted) - seen


def _pool(workers: int, pictures: int) -> Executor:
    """Threads for few pictures, processes for more than `MANY`.

    Pillow's decoders release the interpreter lock, so threads run side by side. Processes take
    seconds to start but share no lock. They are not forked from this process, because forking is
    unsafe where threads or a CUDA context exist.
    """
    if pictures > MANY and workers > 1:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))
    return ThreadPoolExecutor(workers)


def _mapped(
    pool: Executor, chunks: Iterable[list[tuple[str, bytes]]], size: int, workers: int
) -> Iterator[Decoded]:
    """The decoded chunks, in order.

    At most 2 * workers + 1 of them are in the pool at once, so the store need not fit in memory.
    """
    waiting: list[Future[Decoded]] = []
    for chunk in chunks:
        waiting.append(pool.submit(decode_all, chunk, size))
        if len(waiting) > 2 * workers:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()

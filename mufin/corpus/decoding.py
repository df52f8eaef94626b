"""Many pictures of the image store to pixels, by a pool of threads or processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mufin.corpus.image_store import read_pictures
from mufin.corpus.pixels import decode_all
from mufin.progress import progress

MANY = 20_000  # pictures from which processes decode
CHUNK = 64  # pictures per task of the pool


def decoded(
    store: Path, keys: np.ndarray, size: int, workers: int, drops: dict[str, int]
) -> Iterator[tuple[str, np.ndarray]]:
    """(key, pixels (size, size, 3) uint8) of the pictures `keys`, in the order of the store.

    What cannot be decoded, or is not in the store, is counted in `drops` by its reason.
    """
    wanted, seen = set(keys.tolist()), 0
    with _pool(workers, len(keys)) as pool:
        chunks = read_pictures(store, wanted, CHUNK)
        total = -(-len(wanted) // CHUNK)
        for chunk in progress(
            _mapped(pool, chunks, size, workers), "decode", f"chunks of {CHUNK} pictures", total
        ):
            for key, pixels in chunk:
                seen += 1
                if isinstance(pixels, str):
                    drops[pixels] = drops.get(pixels, 0) + 1
                else:
                    yield key, pixels
    if seen < len(wanted):
        drops["not in the image store"] = len(wanted) - seen


def _pool(workers: int, pictures: int) -> Executor:
    """Threads, which Pillow's decoders let run side by side; processes for many pictures: they start in seconds but do not
    share an interpreter. Never by fork: this process has threads, and maybe a GPU."""
    if pictures > MANY and workers > 1:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))
    return ThreadPoolExecutor(workers)


def _mapped(pool: Executor, chunks: Iterable, size: int, workers: int) -> Iterator[list]:
    """Results in order, with a bounded number of chunks under way: the store need not fit in memory."""
    waiting: list[Future] = []
    for chunk in chunks:
        waiting.append(pool.submit(decode_all, chunk, size))
        if len(waiting) > 2 * workers:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()

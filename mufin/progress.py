"""Progress on stderr: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(
    items: Iterable[T],
    what: str,
    unit: str,
    total: int | None = None,
    start: int = 0,
    every: float = 15.0,
) -> Iterator[T]:
    """Yields `items` and reports them: `decode: 1200 of 5000 pictures after 30 s, 95 s left`.

    On a terminal it draws a bar. Otherwise it prints a line every `every` seconds, so a shorter
    loop prints none. `start` counts the items that a resumed run has done before; `total` includes
    them. By default `total` is taken from the length of `items`, if it has one. What is left is
    estimated from the items of this run alone, and not without a total. A single item is not
    reported.
    """
    if total is None and (length := getattr(items, "__len__", None)) is not None:
        total = start + length()
    if total == 1:
        yield from items
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=what, total=total, initial=start, unit=f" {unit}", leave=False)
        return
    of = f" of {total}" if total else ""
    resumed = f" (from {start})" if start else ""
    began = last = time.monotonic()
    for done, item in enumerate(items, start):
        if (now := time.monotonic()) - last > every:
            after = f"{now - began:.0f} s{_left(done, start, total, now - began)}"
            print(f"{what}: {done}{of} {unit} after {after}{resumed}", file=sys.stderr, flush=True)
            last = now
        yield item


def _left(done: int, start: int, total: int | None, seconds: float) -> str:
    """`, 95 s left`; nothing where the total or the speed is not known."""
    if total is None or done <= start:
        return ""
    return f", {seconds * max(total - done, 0) / (done - start):.0f} s left"

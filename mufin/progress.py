"""Progress on stderr: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    items: Iterable[T],
    what: str,
    unit: str,
    total: int | None = None,
    start: int = 0,
    every: float = 15.0,
) -> Iterator[T]:
    """Yields `items` and reports them, as `decode: 1200 of 5000 pictures after 30 s`.

    On a terminal it draws a bar. Otherwise it prints a line every `every` seconds, so a shorter
    loop prints none. `start` counts the items that a resumed run has done before; `total` includes
    them. By default `total` is taken from the length of `items`, if it has one.
    """
    if total is None and (length := getattr(items, "__len__", None)) is not None:
        total = start + length()
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, initial=start, unit=f" {unit}", leave=False)
        return
    of = f" of {total}" if total else ""
    resumed = f" (from {start})" if start else ""
    began = last = time.monotonic()
    for done, item in enumerate(items, start):
        if (now := time.monotonic()) - last > every:
            line = f"{what}: {done}{of} {unit} after {now - began:.0f} s{resumed}"
            print(line, file=sys.stderr, flush=True)
            last = now
        yield item

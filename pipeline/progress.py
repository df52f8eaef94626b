"""Progress: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Iterable, Iterator, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None, every: float = 15.0) -> Iterator[T]:
    """`items`, told on stderr: a bar where that is a terminal, else a line every `every` seconds and none if quicker."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, leave=False)
        return
    total = total if total is not None else getattr(items, "__len__", lambda: None)()
    start = last = time.monotonic()
    for done, item in enumerate(items):
        if (now := time.monotonic()) - last > every:
            print(f"{what}: {done}{f' of {total}' if total else ''} after {now - start:.0f} s", file=sys.stderr,
                  flush=True)
            last = now
        yield item

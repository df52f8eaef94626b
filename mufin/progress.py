"""Progress on stderr: a bar on a terminal, a line now and then in a log."""

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
    """`items`, with lines such as `decode: 1200 of 5000 pictures after 30 s`.

    A bar where stderr is a terminal; else a line every `every` seconds, and none for what ends sooner. `start`: how many
    a resumed run has behind it already. `total` counts these too; by default it is known where `items` has a length.
    """
    if total is None and (length := getattr(items, "__len__", None)) is not None:
        total = start + length()
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, initial=start, unit=f" {unit}", leave=False)
        return
    began = last = time.monotonic()
    for done, item in enumerate(items, start):
        if (now := time.monotonic()) - last > every:
            of = f" of {total}" if total else ""
            resumed = f" (from {start})" if start else ""
            print(
                f"{what}: {done}{of} {unit} after {now - began:.0f} s{resumed}",
                file=sys.stderr,
                flush=True,
            )
            last = now
        yield item

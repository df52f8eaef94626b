"""JSON lines as Arrow tables, block by block: only where the line reader would read the same.

A block that this reader does not read in the same way, such as one with a broken line, a number in
place of a text or a lone half of a surrogate pair, is for `json_rows`, which names the lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

T = TypeVar("T")
BLOCK = 2**22  # bytes of text that are parsed at once
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


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, of which the next one is made in a thread while one is used."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item

"""Keeps the progress bars and logs of libraries in C++ and Rust off the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, nothing that this process writes to standard output or error is shown.

    It works on the file descriptors, as such libraries do not use Python's streams.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved, nowhere = {number: os.dup(number) for number in (1, 2)}, os.open(os.devnull, os.O_WRONLY)
    try:
        for number in saved:
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in saved.items():
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)

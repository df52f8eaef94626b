"""Reads numbers from environment variables; a value that is out of range is one sentence."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator

from mufin.errors import MufinError, shown


def whole(name: str, default: int, least: int, most: int, remedy: str = "or unset it") -> int:
    """The whole number in the variable `name`, `default` where it is not set.

    Raises MufinError if it is not one to nine ASCII digits, or outside [least, most]. `remedy` ends
    the sentence.
    """
    if (text := os.environ.get(name)) is None:
        return default
    if re.fullmatch(r"[0-9]{1,9}", text) and least <= int(text) <= most:
        return int(text)
    raise MufinError(
        f"{name} is {shown(text)}; set it to a whole number from {least} to {most}, {remedy}"
    )


def seconds(name: str, default: float) -> float:
    """The number of seconds in the variable `name`, `default` where it is not set.

    Raises MufinError if it is not finite, or less than 0.
    """
    if (text := os.environ.get(name)) is None:
        return default
    # float() alone also reads nan, inf, spaces, underscores and the digits of other scripts.
    if re.fullmatch(r"[0-9.]{1,20}(e[+-]?[0-9]{1,4})?", text):
        try:
            if math.isfinite(value := float(text)):
                return value
        except ValueError:  # such as 1.2.3
            pass
    raise MufinError(f"{name} is {shown(text)}; set it to seconds, at least 0, or unset it")


def rank() -> int:
    """The number of this process among those of torchrun, from 0; 0 without torchrun."""
    return whole("RANK", 0, 0, 999_999, TORCHRUN)


def local_rank() -> int:
    """The number of this process among those of torchrun on this machine, from 0."""
    return whole("LOCAL_RANK", 0, 0, 9_999, TORCHRUN)


def world_size() -> int:
    """The number of processes that torchrun has started; 1 without torchrun."""
    return whole("WORLD_SIZE", 1, 1, 1_000_000, TORCHRUN)


def processes() -> int:
    """MUFIN_PROCESSES, of stages with networks; 1 in a process that torchrun has started."""
    count = whole("MUFIN_PROCESSES", 1, 1, 1024)
    return 1 if "WORLD_SIZE" in os.environ else count


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """A block in which a process of torchrun is no part of a group, for work of its own.

    What the process starts there is alone, too. It keeps its number, and so its GPU.
    """
    world = os.environ.pop("WORLD_SIZE", None)
    try:
        yield
    finally:
        if world is not None:
            os.environ["WORLD_SIZE"] = world


TORCHRUN = "as torchrun does, or unset it"

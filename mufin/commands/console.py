"""What all commands share: lines on the terminal, and errors as one sentence."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

from mufin import interrupts
from mufin.errors import MufinError, escaped, sentence


def guarded(function: Callable, *args: object, **options: object) -> None:
    """Runs a command in `sentences`; SIGINT and SIGTERM end it as `mufin.interrupts` says."""
    with sentences(), interrupts.unwinding():
        function(*args, **options)


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """An error in the block that a person can correct becomes one sentence and exit code 1."""
    try:
        yield
    except Exception as error:
        from mufin import runtime

        text = str(error) if isinstance(error, MufinError) else runtime.refused(error)
        if text is None:
            raise
        typer.echo(f"error: {sentence(text)}", err=True)
        raise typer.Exit(1) from None


def say_all(lines: Callable[..., Iterator[str]], *args: object) -> None:
    for line in lines(*args):
        say(line)


def say(text: str) -> None:
    """Prints lines whose names and values may have control characters."""
    for line in text.split("\n"):
        typer.echo(escaped(line))


def prints_utf8() -> bool:
    return (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"


def check_folder(folder: Path, which: str) -> None:
    if not os.path.isdir(folder):
        raise MufinError(f"{folder} is not a folder; name {which}")

"""What a check finds, and programs that it runs: each ends within a time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mufin.errors import MufinError

OK, WARNING, FAILS = "ok", "warning", "fails"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `mufin doctor`."""

    name: str
    state: str  # ok, warning or fails
    text: str
    remedy: str = ""  # what to do; '' only if ok


class CannotRun(MufinError):
    """A program is missing, or takes too long."""


def output_of(words: list[str], folder: Path, seconds: float) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a program; raises CannotRun.

    After `seconds` it is killed, with all that it has started in its session.
    """
    program = Path(words[0]).name
    try:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise CannotRun(f"{program} cannot be run ({error.strerror})") from None
    try:
        out, err = process.communicate(timeout=seconds)
        return process.returncode, out, err
    except subprocess.TimeoutExpired as late:
        read: str | bytes = late.stdout or ""  # bytes, whatever typeshed and `text` say
        text = read if isinstance(read, str) else read.decode(errors="replace")
        return 124, text, f"{program} took more than {seconds:.0f} s"
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout and process.stdout.close()
        process.stderr and process.stderr.close()
        process.wait()


def gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"

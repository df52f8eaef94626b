"""Imports packages in a process of its own, as a broken one may raise, crash or never end."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mufin.commands.checks.finding import output_of

SECONDS = 90.0  # for all imports together

# Writes a line of JSON before each import and one after it
PROBE = """
import importlib, json, os, sys
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what packages print is not for us
def say(**said):
    print(json.dumps(said), file=out, flush=True)
for name in sys.argv[1:]:
    say(begins=name)
    try:
        module = importlib.import_module(name)
        more = {}
        if name == "torch":
            more["cuda"] = module.version.cuda
            if module.cuda.is_available():
                many = range(module.cuda.device_count())
                found = [module.cuda.get_device_properties(i) for i in many]
                more["gpus"] = [[p.name, p.total_memory] for p in found]
        say(ends=name, error="", **more)
    except BaseException as error:
        text = " ".join(str(error).split())
        say(ends=name, error=f"{type(error).__name__}: {text}"[:200])
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """How the import of a module ended."""

    module: str
    error: str  # '' if it went well
    cuda: str | None = None  # of torch: the version of CUDA that it is made for
    gpus: tuple[tuple[str, int], ...] = ()  # of torch: name and bytes of each GPU


def imported(modules: Sequence[str], folder: Path, seconds: float = SECONDS) -> list[Imported]:
    """How each import ends, in the order of `modules`; `folder` is where Python runs."""
    end, todo, out = time.monotonic() + seconds, list(modules), []
    while todo and (left := end - time.monotonic()) > 0:
        found = list(_run(todo, folder, left))
        out += found
        done = {one.module for one in found}
        if not done:
            break
        todo = [name for name in todo if name not in done]
    return out + [Imported(name, "there was no time left to import it") for name in todo]


def _run(modules: list[str], folder: Path, seconds: float) -> Iterator[Imported]:
    """Up to the module at which the process ends, if one ends it."""
    code, text, _ = output_of([sys.executable, "-c", PROBE, *modules], folder, seconds)
    begun = None
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:  # cut by a kill
            continue
        begun = said.get("begins")
        if "ends" in said:
            gpus = tuple((name, size) for name, size in said.get("gpus", ()))
            yield Imported(said["ends"], said["error"], said.get("cuda"), gpus)
    if begun is not None:
        yield Imported(begun, _end(code, seconds))
    elif not text and modules:
        yield Imported(modules[0], _end(code, seconds))


def _end(code: int, seconds: float) -> str:
    if code == 124:
        return f"its import took more than {seconds:.0f} s"
    if code < 0:
        return f"its import ended Python with {signal.Signals(-code).name}"
    return f"its import ended Python with exit code {code}"

"""Runs the ten stages twice, the second time with kill -9 at random; prints what differs.

python -m tests.attack.killed_stages <folder> <seed> <kills>

`folder` holds catalog.jsonl, whose pictures are at addresses of this machine. One process imports
everything and forks a child for each attempt, so an attempt costs what the stage costs. It must not
compute anything itself: threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.projects import ROOT, changed
from tests.support.stages import FINISHED, SMALL, STAGES, stage

HASHED = ("data", "models", "metrics")
# Every step of a publication is between two of these calls
CALLS = ((os, "fsync"), (os, "replace"), (shutil, "rmtree"))


@dataclass
class Undisturbed:
    """What a stage did when nothing disturbed it."""

    seconds: float
    calls: int  # of CALLS


def main(folder: Path, seed: int, kills: int) -> None:
    for name in STAGES:
        stage(name)
    whole, home = (home_of(folder, folder / name) for name in ("whole", "broken"))
    before = {name: undisturbed(name, whole) for name in STAGES}
    wanted = hashes(whole)
    gc.freeze()  # a child's garbage collector copies no page of what is imported
    rng, torn, done, attempts = random.Random(seed), set(), 0, 0
    for number, name in enumerate(STAGES, 1):
        while done < kills * number // len(STAGES) and attempts < 3 * kills:
            attempts += 1
            done += killed(name, home, before[name], rng, by_call=bool(attempts % 2))
            torn |= {n for n, h in visible(home).items() if wanted.get(n) != h}
        run(name, home)
    found = hashes(home)
    print(
        json.dumps(
            {
                "kills": done,
                "files": len(wanted),
                "different": sorted(n for n in wanted | found if wanted.get(n) != found.get(n)),
                "torn": sorted(torn),
                "left": left(home),
                "processes": orphans(),
            }
        )
    )


def home_of(folder: Path, home: Path) -> Path:
    """A folder of its own with the small settings and the catalog."""
    home.mkdir()
    settings = {
        "download.source": "catalog",
        "download.location": str(folder / "catalog.jsonl"),
        "download.private_addresses": True,
        "download.max_images": 1,
    }
    (home / "params.yaml").write_text(changed(ROOT / "params.yaml", SMALL | FINISHED | settings))
    return home


def undisturbed(name: str, home: Path) -> Undisturbed:
    """Runs a stage to its end; what it imported later than at the start is imported here too."""
    reads, writes = os.pipe()

    def report(calls: list[int]) -> None:
        with open(writes, "w") as file:
            json.dump([calls[0], sorted(sys.modules)], file)

    start = time.monotonic()
    child = forked(name, home, last=report)
    os.close(writes)
    with open(reads) as file:
        said = file.read()
    check(os.waitpid(child, 0)[1], name, home)
    seconds = time.monotonic() - start
    calls, modules = json.loads(said)
    for module in modules:
        if module not in sys.modules:
            with contextlib.suppress(Exception):  # not importable under that name
                importlib.import_module(module)
    return Undisturbed(seconds, calls)


def killed(name: str, home: Path, before: Undisturbed, rng: random.Random, by_call: bool) -> int:
    """One attempt, killed at a random time or at a random call; 1, or 0 where it came too late.

    A kill comes too late where the attempt has less to do than a whole run: it continued one.
    """
    start = time.monotonic()
    at = rng.randrange(2 * before.calls) if by_call else None
    child = forked(name, home, kill_at=at)
    if at is None:
        time.sleep(rng.random() * before.seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return 1
    check(status, name, home)
    before.seconds = min(before.seconds, time.monotonic() - start)
    return 0


def run(name: str, home: Path) -> None:
    """Runs a stage to its end."""
    check(os.waitpid(forked(name, home), 0)[1], name, home)


def check(status: int, name: str, home: Path) -> None:
    """Ends in an error where a stage failed."""
    if status:
        raise SystemExit(f"{name}: {(home.parent / 'said.txt').read_text()[-3000:]}")


def forked(
    name: str,
    home: Path,
    kill_at: int | None = None,
    last: Callable[[list[int]], None] = lambda calls: None,
) -> int:
    """The id of a child that runs a stage; `kill_at` 2 n is before, 2 n + 1 after its call n."""
    if child := os.fork():
        return child
    code = 1
    try:
        said = os.open(home.parent / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(home)
        calls = counted(kill_at)
        stage(name).main(home)
        last(calls)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def counted(kill_at: int | None) -> list[int]:
    """[number of calls so far of CALLS]; the process kills itself at one of them."""
    calls = [0]

    def die_at(point: int) -> None:
        if point == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(call: Callable) -> Callable:
        def counting(*args, **kwargs):
            number = calls[0]
            calls[0] += 1
            die_at(2 * number)
            result = call(*args, **kwargs)
            die_at(2 * number + 1)
            return result

        return counting

    for module, name in CALLS:
        setattr(module, name, wrapped(getattr(module, name)))
    return calls


def hashes(home: Path) -> dict[str, str]:
    """The MD5 of each file that must be equal in all runs: not of times and memory."""
    out = {}
    for path in sorted(path for part in HASHED for path in (home / part).rglob("*")):
        name = str(path.relative_to(home))
        if path.is_file() and not name.startswith("metrics/runtime/"):
            out[name] = hashlib.md5(path.read_bytes()).hexdigest()
    return out


def visible(home: Path) -> dict[str, str]:
    """The same of the published artifacts; a curve of the training grows while the stage runs."""
    return {
        name: digest
        for name, digest in hashes(home).items()
        if not name.startswith("metrics/") and "/." not in name
    }


def left(home: Path) -> list[str]:
    """Temporary folders, and files in the scratch folder."""
    hidden = [p for part in HASHED for p in (home / part).rglob(".*")]
    scratch = [p for p in (home / "scratch").rglob("*") if p.is_file()]
    return sorted(str(p.relative_to(home)) for p in hidden + scratch)


def orphans(patience: float = 10.0) -> list[str]:
    """The processes of this session that still run after `patience` seconds, but this one."""
    end = time.monotonic() + patience
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                ours = os.getsid(process.pid) == os.getsid(0) and process.pid != os.getpid()
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""What every stage needs to run: command line, workers, scratch folder, costs, error sentences.

Settings of the machine are environment variables, never params, so that they never retrain a model:

MUFIN_WORKERS     processes or threads     default: the cores that this process may use
MUFIN_SCRATCH     folder                   default: scratch/; state that survives a kill
MUFIN_CHECKPOINT_SECONDS                   default: 60; time between checkpoints in training
MUFIN_PROCESSES   of stages with networks  default: 1; one per GPU, by torchrun's launcher

`mufin.devices` reads those of the device, `mufin.cluster.settings` those of a cluster.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import platform
import re
import resource
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Callable, Iterator, NoReturn

import typer

from mufin import code, environment, interrupts
from mufin.artifacts import files
from mufin.artifacts.files import write_json
from mufin.artifacts.publication import WRITING
from mufin.errors import LONGEST, MufinError, sentence, shown

MOST_WORKERS = 1024
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EROFS)
LOOK_SECONDS = 1.0  # between two measurements of the memory in use
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # where a process says to torchrun why it fails
LOCK = "running"  # the file of a scratch folder that its process holds locked
# scratch folder -> its open lock file; the kernel unlocks it when the process ends, also by a kill
_locks: dict[Path, int] = {}

Home = Annotated[
    Path, typer.Option(help="the folder that holds params.yaml, data/, models/ and metrics/")
]


def workers() -> int:
    """Processes or threads for work on the CPU, at least 1."""
    cores = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    return environment.whole("MUFIN_WORKERS", cores, 1, MOST_WORKERS)


def threads(wanted: int | str) -> int:
    """Those of a setting that is a number or `all`, which is `workers`."""
    return workers() if wanted == "all" else int(wanted)


def scratch(stage: str, fingerprint: str) -> Path:
    """`$MUFIN_SCRATCH/<stage>/<fingerprint>/`, created if missing: the state that survives a kill.

    The folder is locked for this process until `discard` or the end of the process, also by a kill.
    Under torchrun the first process holds the lock for all. Raises MufinError if another process
    holds it, or if there can be no such folder.
    """
    folder = _scratch_root() / stage / fingerprint
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise MufinError(
            f"{shown(str(folder))} cannot be created ({error.strerror}); set MUFIN_SCRATCH to a "
            "folder that you may write to"
        ) from None
    if _first():
        _take(folder)
    return folder


def fingerprint(settings: object, inputs: list[Path], script: Path) -> str:
    """The name of a run's scratch folder: a hash of settings, inputs and the code that `script`
    runs.
    """
    return files.fingerprint(settings, inputs, code.files_of(script))


def discard(folder: Path) -> None:
    """Remove a scratch folder whose stage is done."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another process may have taken the folder
        folder.rmdir()
    if (lock := _locks.pop(folder.resolve(), None)) is not None:
        os.close(lock)


def _scratch_root() -> Path:
    if not (name := _scratch_name()):
        raise MufinError("MUFIN_SCRATCH is ''; set it to a folder, or unset it")
    return Path(name)


def _scratch_name() -> str:
    return os.environ.get("MUFIN_SCRATCH", "scratch")


def _first() -> bool:
    """Whether this is the only process of the run, or the first of torchrun's."""
    return environment.rank() == 0


def _take(folder: Path) -> None:
    """Create `folder` and lock its lock file; raises MufinError if another process holds it."""
    path = folder / LOCK
    if folder.resolve() in _locks and _names(path, _locks[folder.resolve()]):
        return
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the process that held it has just finished and removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(lock, 200).decode(errors="replace") or "unknown"
            os.close(lock)
            raise MufinError(
                f"another process (pid {who}) is running this stage in {folder}; wait for it, "
                f"or end it with `kill {who.split()[0]}`: a killed dvc leaves its stage running"
            ) from None
        except OSError:  # a network file system without locks
            pass
        if _names(path, lock):
            os.ftruncate(lock, 0)
            with contextlib.suppress(OSError):  # a full disk; the lock holds without the name too
                os.write(lock, f"{os.getpid()} on {os.uname().nodename}".encode())
            _locks[folder.resolve()] = lock
            return
        os.close(lock)


def _names(path: Path, file: int) -> bool:
    """Whether `path` is still the open file: since it was opened, it may have been replaced."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def checkpoint_seconds() -> float:
    """The least time between two checkpoints of a training stage, in seconds."""
    return environment.seconds("MUFIN_CHECKPOINT_SECONDS", 60.0)


@dataclass
class Report:
    """What a stage reports about its run."""

    # counted or learnt, equal in every run of the same settings: metrics/<stage>.json
    facts: dict = field(default_factory=dict)
    # of this run on this machine: metrics/runtime/<stage>.json
    costs: dict = field(default_factory=dict)
    items: int | None = None  # processed by this process, for `items_per_second`


@contextlib.contextmanager
def measured(stage: str, home: Path) -> Iterator[Report]:
    """A report to fill; on success it is published, with wall time (s), peak memory (MB) and
    throughput.

    `peak_memory_mb`: the largest resident memory of this process and its children together,
    measured every second, and at least this process's own peak, which the kernel records. A page
    that two processes share counts twice.
    """
    start, report = time.monotonic(), Report()
    with _family_peak() as peak:
        yield report
    seconds = time.monotonic() - start
    costs: dict = {
        "seconds": round(seconds, 2),
        "peak_memory_mb": round(max(_own_peak(), *peak), 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": "cpu",
    }
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        costs["device"] = torch.cuda.get_device_name()
        costs["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if report.items is not None:
        costs |= {
            "items": report.items,
            "items_per_second": round(report.items / max(seconds, 1e-9), 2),
        }
    if _first():
        write_json(costs | report.costs, home / f"metrics/runtime/{stage}.json")
        if report.facts:
            write_json(report.facts, home / f"metrics/{stage}.json")


@contextlib.contextmanager
def _family_peak() -> Iterator[list[float]]:
    """[MB]: the largest memory that a thread has measured so far.

    The kernel's own figure for children (RUSAGE_CHILDREN) counts only those that were waited for,
    so it misses the workers of a forkserver.
    """
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            peak[0] = max(peak[0], _family_memory())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _own_peak() -> float:
    """MB: the largest resident memory of this process so far.

    Not by getrusage, which on Linux also counts the memory of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = re.search(r"VmHWM:\s*([0-9]+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def _family_memory() -> float:
    """MB resident in this process and its descendants; 0 without psutil (some GPU machines)."""
    try:
        import psutil
    except ImportError:
        return 0.0
    total, me = 0, psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended
            total += process.memory_info().rss
    return total / 2**20


def refused(error: BaseException) -> str | None:
    """One sentence if `error` means that the system refused to open or write a file, or that torch
    has no deterministic algorithm; else None.

    Libraries raise classes of their own for this, so the whole chain of causes is searched.
    """
    link: BaseException | None = error
    while link is not None and (why := _refusal(link)) is None:
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    if link is None:
        return _undetermined(error)
    notes = [
        n.removeprefix(WRITING) for n in getattr(error, "__notes__", []) if n.startswith(WRITING)
    ]
    place = notes[-1] if notes else getattr(link, "filename", None) or "a file"
    if why in {os.strerror(number) for number in CLOSED}:
        place = getattr(link, "filename", None) or place
        return sentence(
            f"{place} cannot be opened or written: {why}; change its permissions or choose "
            "another place"
        )
    free = {  # of each disk that may be full
        disk: f"{disk} has {shutil.disk_usage(disk).free >> 20} MB free"
        for disk in map(_disk, ([place] if place != "a file" else []) + [_scratch_name()])
    }
    text = f"{place} cannot be written: {why}; free space or choose another place"
    scratch = "(MUFIN_SCRATCH moves the scratch folder)"
    shorter = f"{text} {scratch}"
    longer = f"{text}: {', '.join(free.values())} {scratch}"
    longest = f"{longer}; `dvc checkout` restores outputs that dvc removed"
    return next((t for t in (longest, longer) if len(t) <= LONGEST), sentence(shorter))


def _undetermined(error: BaseException) -> str | None:
    """One sentence if torch has no deterministic algorithm for an operation; else None."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
    if not isinstance(error, RuntimeError) or not found:
        return None
    return sentence(
        f"{found[1]} has no deterministic algorithm on this device; set MUFIN_DETERMINISTIC=0, "
        "and two runs may differ"
    )


def _refusal(error: BaseException) -> str | None:
    """The system's reason; safetensors, tokenizers and polars put its errno into their text, numpy
    drops it.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        number = error.errno
    elif found := re.search(r"os error (\d+)", text):
        number = int(found[1])
    else:
        cut = isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", text)
        return f"{text}, as where no space is left" if cut else None
    return os.strerror(number) if number in FULL + CLOSED else None


def _disk(path: Path | str) -> Path:
    """The folder at which the file system is mounted that holds `path`, or would hold it."""
    path = Path(path).resolve()
    return next(p for p in (path, *path.parents) if os.path.ismount(p))


def run(
    main: Callable,
    launch: Callable[[int, int], None] | None = None,
    leave: Callable[[], None] | None = None,
) -> None:
    """Run a script's `main` with its command line; an error that the user can fix is one sentence
    and exit code 1. SIGINT and SIGTERM end it as `mufin.interrupts` says.

    With `launch`, which gets the numbers of processes and of workers, it runs in MUFIN_PROCESSES
    processes if that is more than one. Each of them calls `leave` after `main`.
    """

    def guarded(*args, **kwargs):
        try:
            if launch is not None and (count := environment.processes()) > 1:
                return launch(count, workers())
            main(*args, **kwargs)
            if leave is not None:
                leave()
        except MufinError as error:
            _fail(str(error))
        except Exception as error:
            if (text := refused(error)) is None:
                raise
            _fail(text)

    functools.update_wrapper(guarded, main)  # typer reads options and help from `main`
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(guarded)
    with interrupts.unwinding():
        app()


def _fail(text: str) -> NoReturn:
    if not _told(text):
        print(f"error: {sentence(text)}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def _told(text: str) -> bool:
    """Whether `mufin.processes` has started this process and now says `text`, once for all."""
    if interrupts.LAUNCHED not in os.environ or ERROR_FILE not in os.environ:
        return False
    said = {"message": {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}}
    with open(os.environ[ERROR_FILE], "w") as file:
        json.dump(said, file)
    return True

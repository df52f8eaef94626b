"""The machine, from the environment and never from params: device, precision, workers, scratch, the stage's frame.

MUFIN_DEVICE      cuda, cuda:1, cpu        default: CUDA where there is one, else the CPU
MUFIN_PRECISION   fp32, bf16               default: bf16 on CUDA, fp32 on a CPU (where bf16 is slower)
MUFIN_WORKERS     processes or threads     default: the cores this process may use
MUFIN_SCRATCH     folder                   default: scratch/; state that survives a kill
MUFIN_CHECKPOINT_SECONDS                   default: 60; time between two checkpoints of a training stage
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import resource
import shutil
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Callable, Iterator

import psutil
import torch
import typer

from mufin import code
from mufin.artifacts import files
from mufin.artifacts.files import WRITING, write_json
from mufin.errors import MufinError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EROFS)
LOOK_SECONDS = 1.0  # between two looks at how much memory is in use
LOCK = "running"  # the file of a scratch folder that its process holds locked
_locks: dict[
    Path, int
] = {}  # scratch folder -> the open lock; the kernel lets go of it when the process ends, however

Home = Annotated[
    Path, typer.Option(help="the folder that holds params.yaml, data/, models/ and metrics/")
]


def device() -> torch.device:
    """The device of this process; under torchrun the local rank's GPU. Raises MufinError if it is not there."""
    default = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    name = os.environ.get("MUFIN_DEVICE", default)
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise MufinError(
            f"MUFIN_DEVICE is {name!r}; it must be cpu, cuda or cuda:<number>"
        ) from None
    if chosen.type == "cuda":
        if chosen.index is None:  # set_device wants a number
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if not torch.cuda.is_available() or chosen.index >= torch.cuda.device_count():
            raise MufinError(
                f"MUFIN_DEVICE is {name!r} and torch sees {torch.cuda.device_count()} GPUs; "
                "set it to cpu or to one that is there"
            )
        torch.cuda.set_device(chosen)
        torch.set_float32_matmul_precision("high")
        # cuDNN plans its attention anew for each size of a batch, and each step has another number of titles and images
        torch.backends.cuda.enable_cudnn_sdp(False)
    return chosen


def precision() -> torch.dtype:
    """The dtype of autocast: torch.bfloat16 or torch.float32 (no autocast)."""
    name = os.environ.get("MUFIN_PRECISION", "bf16" if device().type == "cuda" else "fp32")
    if name not in ("fp32", "bf16"):
        raise MufinError(f"MUFIN_PRECISION is {name!r}; it must be fp32 or bf16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def workers() -> int:
    """Processes or threads for work on the CPU, at least 1."""
    name = os.environ.get("MUFIN_WORKERS", str(len(os.sched_getaffinity(0))))
    if not name.isdigit() or int(name) < 1:
        raise MufinError(f"MUFIN_WORKERS is {name!r}; it must be a whole number of at least 1")
    return int(name)


def scratch(stage: str, fingerprint: str) -> Path:
    """`$MUFIN_SCRATCH/<stage>/<fingerprint>/`, made if need be: where a killed stage finds what it had.

    This process's alone until `discard` or its end, whichever way it ends; under torchrun the first process's, for all.
    Raises MufinError where another process has it.
    """
    folder = _scratch_root() / stage / fingerprint
    if _first():
        _take(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def fingerprint(settings: object, inputs: list[Path], script: Path) -> str:
    """Names the scratch folder of a run by all that decides its result: settings, inputs, and the code of `script`."""
    return files.fingerprint(settings, inputs, code.files_of(script))


def discard(folder: Path) -> None:
    """Remove a scratch folder whose stage is done."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another process may have come in at once
        folder.rmdir()
    if (lock := _locks.pop(folder.resolve(), None)) is not None:
        os.close(lock)


def _scratch_root() -> Path:
    return Path(os.environ.get("MUFIN_SCRATCH", "scratch"))


def _first() -> bool:
    """Whether this is the only process of the run, or the first of torchrun's."""
    return int(os.environ.get("RANK", 0)) == 0


def _take(folder: Path) -> None:
    """Make `folder` and hold its lock file."""
    path = folder / LOCK
    if folder.resolve() in _locks and _names(path, _locks[folder.resolve()]):
        return
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the process that had it has just finished and removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(lock, 200).decode(errors="replace") or "unknown"
            os.close(lock)
            raise MufinError(
                f"another process (pid {who}) is running this stage in {folder}; wait for it or stop it"
            ) from None
        except OSError:  # a network file system without locks
            pass
        if _names(path, lock):
            os.ftruncate(lock, 0)
            with contextlib.suppress(
                OSError
            ):  # on a full disk; the lock holds without the name too
                os.write(lock, f"{os.getpid()} on {os.uname().nodename}".encode())
            _locks[folder.resolve()] = lock
            return
        os.close(lock)


def _names(path: Path, file: int) -> bool:
    """Whether `path` is still the open file: it may have been removed, and made anew, since."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def checkpoint_seconds() -> float:
    return float(os.environ.get("MUFIN_CHECKPOINT_SECONDS", 60))


@dataclass
class Report:
    """What a stage tells of its run."""

    facts: dict = field(
        default_factory=dict
    )  # counted or learnt, the same in every run: metrics/<stage>.json
    costs: dict = field(
        default_factory=dict
    )  # of this run on this machine: metrics/runtime/<stage>.json
    items: int | None = None  # what this process worked through, for `items_per_second`


@contextlib.contextmanager
def measured(stage: str, home: Path) -> Iterator[Report]:
    """A report to fill; published on success, with wall time (s), peak memory (MB) and throughput among its costs.

    `peak_memory_mb`: the most that this process and those it started had resident together, looked at every second, and
    at least this process's own peak, which the kernel keeps. A page that two processes share counts twice.
    """
    start, report = time.monotonic(), Report()
    with _family_peak() as peak:
        yield report
    seconds = time.monotonic() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    costs: dict = {
        "seconds": round(seconds, 2),
        "peak_memory_mb": round(max(own, *peak), 1),
        "device": "cpu",
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
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
    """[MB], the most that a thread has seen. The kernel's own figure for children (RUSAGE_CHILDREN) counts only those
    that were waited for: it has no worker that a forkserver started."""
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


def _family_memory() -> float:
    """MB resident in this process and all below it."""
    total = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended
            total += process.memory_info().rss
    return total / 2**20


def refused(error: BaseException) -> str | None:
    """One sentence if `error` means that a file could not be written, in whichever class a library says it; else None."""
    link: BaseException | None = error
    while link is not None and (why := _refusal(link)) is None:
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    if link is None:
        return None
    notes = [
        n.removeprefix(WRITING) for n in getattr(error, "__notes__", []) if n.startswith(WRITING)
    ]
    place = notes[-1] if notes else getattr(link, "filename", None) or "a file"
    if why in map(os.strerror, CLOSED):
        place = getattr(link, "filename", None) or place
        return f"{place} cannot be opened or written: {why}; give this user the right to, or choose another place"
    free: dict[int, str] = {}  # of each disk that it may be
    for folder in map(_there, ([place] if place != "a file" else []) + [_scratch_root()]):
        free.setdefault(
            folder.stat().st_dev, f"{folder} has {shutil.disk_usage(folder).free >> 20} MB free"
        )
    return (
        f"{place} cannot be written: {why}; free or choose another place: {', '.join(free.values())} "
        "(MUFIN_SCRATCH moves the scratch folder). What was there before is as it was; where dvc removed it first, "
        "`dvc checkout` brings it back"
    )


def _refusal(error: BaseException) -> str | None:
    """Why the system did not write. safetensors, tokenizers and polars put its errno into their text, numpy drops it."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        number = error.errno
    elif found := re.search(r"os error (\d+)", text):
        number = int(found[1])
    else:
        cut = isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", text)
        return f"{text}, as where no space or quota is left" if cut else None
    return os.strerror(number) if number in FULL + CLOSED else None


def _there(path: Path | str) -> Path:
    """The folder nearest to `path`, upwards, that exists."""
    path = Path(path).resolve()
    return next(p for p in (path, *path.parents) if p.is_dir())


def run(main: Callable) -> None:
    """A stage's entry: options by typer; what a person can mend is one sentence and exit code 1."""

    def guarded(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except MufinError as error:
            _fail(str(error))
        except Exception as error:
            if (sentence := refused(error)) is None:
                raise
            _fail(sentence)

    guarded.__doc__, guarded.__annotations__ = main.__doc__, main.__annotations__
    guarded.__wrapped__, guarded.__name__ = main, main.__name__
    torch.set_num_threads(workers())
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(guarded)
    app()


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    raise SystemExit(1)

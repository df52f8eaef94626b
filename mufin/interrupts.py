"""SIGINT (Ctrl-C) and SIGTERM end a stage within two seconds: one sentence, no process left.

In the main thread a signal raises `Interrupted`, so that temporary folders are removed on the way
out. That can take too long, or wait for ever: the thread may be inside a call of a C library, or
wait for threads that hang in their sockets. Therefore a second thread reads the signals too, and
ends the process after `GRACE` seconds. A second signal ends it at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAUNCHED = "MUFIN_LAUNCHED"  # in the environment of processes that `mufin.processes` starts
GRACE = 1.5  # seconds that the main thread has for its way out
_PR_SET_CHILD_SUBREAPER = 36  # of prctl(2): processes whose parent ends become children of this one


class Interrupted(BaseException):
    """A signal ends this process. It is no Exception, so only `unwinding` catches it."""


class _Watch:
    """The handlers of both signals, and the thread that reads the signals."""

    def __init__(self) -> None:
        self.raises = False  # whether a signal raises in the main thread, or ends the process there
        self.number: int | None = None  # of the first signal
        self.said = False  # whether the sentence is written
        self.lock = threading.RLock()  # of `say`, which a second signal may call once more
        self.reads, self.writes = os.pipe()
        os.set_blocking(self.writes, False)  # as `set_wakeup_fd` wants it
        threading.Thread(target=self._wait, name="interrupts", daemon=True).start()
        # A signal that comes between the fork and `_forget` waits.
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_forget)

    def start(self) -> None:
        """Installs the handlers; a signal that this process was started to ignore stays ignored."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        # The kernel's handler writes each signal there, also while no Python code can run in the
        # main thread.
        signal.set_wakeup_fd(self.writes, warn_on_full_buffer=False)
        with contextlib.suppress(AttributeError):  # not Linux
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between two steps of the interpreter."""
        if self.number is not None or not self.raises:
            self.end(number)
        self.number = number
        raise Interrupted

    def _wait(self) -> None:
        """In a thread: waits for a signal, and ends the process if nothing else does."""
        number = self._next()
        self.say(number)
        _ready(self.reads, select.POLLIN, GRACE)  # a second signal, or the end of the time
        self.end(number)

    def _next(self) -> int:
        """The next of both signals; other handlers of a library may write theirs too."""
        while (number := os.read(self.reads, 1)[0]) not in SIGNALS:
            continue
        return number

    def say(self, number: int) -> None:
        """Writes the sentence to stderr, once; this process writes nothing there afterwards."""
        with self.lock, contextlib.suppress(OSError):
            if self.said:
                return
            self.said = True
            if _speaks() and _ready(2, select.POLLOUT, 0):
                os.write(2, _sentence(number).encode())  # not where nobody reads a full pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def end(self, number: int) -> NoReturn:
        """Ends all processes that this one has started, and this one; waits for no thread."""
        self.say(number)
        for _ in range(100):  # another thread may start processes meanwhile
            if not (found := descendants()):
                break
            kill(found)
        os._exit(128 + number)


def _speaks() -> bool:
    """Whether this process is alone, or the one of several that writes the sentence.

    Of processes that `mufin.processes` has started it is the launcher, else the first one.
    """
    if (rank := os.environ.get("RANK")) is None:
        return True
    return rank == "0" and LAUNCHED not in os.environ


def _sentence(number: int) -> str:
    what = sys.argv[0]
    if what == "-m":  # runpy has imported the package of the module, and will then set argv[0]
        what = sys.orig_argv[sys.orig_argv.index("-m") + 1].replace(".", "/")
    name = signal.Signals(number).name
    return f"error: {Path(what).stem} was interrupted ({name}); run the same command to continue\n"


_watch: _Watch | None = None  # one per process


def watch() -> None:
    """From now on a signal ends this process at once, in a sentence. Only in the main thread."""
    global _watch
    _watch = _watch or _Watch()
    _watch.start()


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """A block in which a signal raises `Interrupted` in the main thread; then the process ends.

    Outside of the main thread, which gets no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers, wakeup = {n: signal.getsignal(n) for n in SIGNALS}, signal.set_wakeup_fd(-1)
    watch()
    assert _watch is not None
    try:
        _watch.raises = True
        yield
    except Interrupted:
        _flush()
        _watch.end(_watch.number or signal.SIGTERM)
    finally:
        _watch.raises = False
        for number, handler in handlers.items():
            if handler is not None:  # not of Python
                signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)


def descendants() -> list[int]:
    """The ids of all living processes below this one, from /proc; none on a system without it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            # pid (name) state ppid: the name may hold anything, also brackets
            state, parent = entry.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.parent.name))
    found, todo = [], [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def kill(processes: list[int]) -> None:
    """SIGKILL to all of them."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def end(number: int) -> NoReturn:
    """Ends this process and all that it has started, for a signal that another handler has got."""
    watch()
    assert _watch is not None
    _watch.end(number)


def _forget() -> None:
    """In a forked child: it ends as other programs do, and tells the parent's thread nothing."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if getattr(signal.getsignal(number), "__self__", None) is _watch:
            signal.signal(number, signal.SIG_DFL)
    _let_go()


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _ready(file: int, event: int, seconds: float) -> bool:
    """Whether the file can be read (POLLIN) or written (POLLOUT), after at most `seconds`."""
    poll = select.poll()
    poll.register(file, event)
    return bool(poll.poll(1000 * seconds))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed
            stream.flush()

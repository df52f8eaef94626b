"""Pictures to pixels in processes of their own, bounded in memory and time.

A picture that crashes its decoder, or takes too much, costs one process, which is replaced; the
others are decoded as if it were not there. `mufin.corpus.decode_worker` is what runs there.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from mufin.corpus.decode_worker import ANSWER, NO_MEMORY, READY, REQUEST
from mufin.corpus.image_store import read_pictures, stored_keys
from mufin.corpus.outcomes import Decoded, Outcomes
from mufin.corpus.pixels import TOO_MUCH_MEMORY
from mufin.errors import MufinError
from mufin.progress import progress

COMMAND = [sys.executable, "-m", "mufin.corpus.decode_worker"]
ROOT = Path(__file__).parents[2]  # where `-m` finds mufin
# Libraries start a thread per core when they are imported, each with a stack that counts as memory
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PATIENCE = 60.0  # seconds for an answer; the process has far less of the processor's time
CHUNK = 64  # pictures per task of a thread

TOO_LONG, CRASHED = "took too long", "the decoder crashed"
NOT_STORED = "not in the image store"


class Decoder:
    """One process that decodes: started when it is needed, replaced after it has ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None
        self.connection: socket.socket | None = None
        self.answers = 0  # of this process
        self.stopped = False
        self.lock = threading.Lock()  # between the start of a process and `stop`

    def decode(self, content: bytes, size: int, notes: set[str] | None = None) -> np.ndarray | str:
        """(size, size, 3) uint8, or the reason why these bytes give no picture.

        What was mended or converted is added to `notes`, as by `pixels.decode`. Raises MufinError
        if no process can be started, and RuntimeError after `stop`.
        """
        used = self.answers > 0
        answer, found = self._answer(content, size)
        if isinstance(answer, str) and answer in (CRASHED, TOO_MUCH_MEMORY):
            self.close()
            if used:  # earlier pictures may have left faults or memory behind; this one had no part
                answer, found = self._answer(content, size)
                self.close()
        if notes is not None:
            notes |= found
        return answer

    def stop(self) -> None:
        """End the process, from any thread; what it decodes is lost, and no other is started."""
        with self.lock:
            self.stopped = True
            if self.process is not None:
                self.process.kill()

    def close(self) -> int:
        """End the process, if there is one; returns its exit code."""
        if self.process is None or self.connection is None:
            return 0
        self.process.kill()
        self.connection.close()
        code = self.process.wait()
        self.process, self.connection, self.answers = None, None, 0
        return code

    def _answer(self, content: bytes, size: int) -> tuple[np.ndarray | str, set[str]]:
        """What the process answers and notes, or why it does not."""
        connection = self.connection or self._started()
        try:
            connection.sendall(REQUEST.pack(size, len(content)))
            connection.sendall(content)
            is_pixels, of_notes, length = ANSWER.unpack(_received(connection, ANSWER.size))
            notes = set(_received(connection, of_notes).decode().split("\n")) - {""}
            body = _received(connection, length)
        except TimeoutError:
            self.close()
            return TOO_LONG, set()
        except OSError:  # it has ended
            return self._cause(), set()
        except BaseException:  # Ctrl-C: the next picture would get the answer to this one
            self.close()
            raise
        self.answers += 1
        if not is_pixels:
            return body.decode(), notes
        return np.frombuffer(body, np.uint8).reshape(size, size, 3), notes

    def _started(self) -> socket.socket:
        """The connection to a new process that is ready."""
        with self.lock:
            self._check()
            self.connection, other = socket.socketpair()
            self.connection.settimeout(PATIENCE)
            with other:
                self.process = subprocess.Popen(
                    COMMAND,
                    stdin=other.fileno(),
                    stdout=subprocess.DEVNULL,
                    cwd=ROOT,
                    env=os.environ | ONE_THREAD,
                )
        with contextlib.suppress(OSError):
            if self.connection.recv(len(READY)) == READY:
                return self.connection
        code = self.close()
        self._check()
        raise MufinError(
            f"a process that decodes pictures did not start (exit code {code}); look for its error "
            f"above, or try `python -m mufin.corpus.decode_worker < /dev/null`"
        )

    def _check(self) -> None:
        if self.stopped:
            raise RuntimeError("the decoder has been stopped")

    def _cause(self) -> str:
        """Why the process has ended."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        code = self.close()
        self._check()
        return {-signal.SIGXCPU: TOO_LONG, NO_MEMORY: TOO_MUCH_MEMORY}.get(code, CRASHED)


def _received(connection: socket.socket, length: int) -> bytearray:
    """`length` bytes; raises OSError if the other end closes before, or is late."""
    content, have = bytearray(length), 0
    with memoryview(content) as view:
        while have < length:
            count = connection.recv_into(view[have:])
            if not count:
                raise ConnectionError
            have += count
    return content


MOST_SPARE = 4  # processes that wait, each with some 60 MB

_spare: list[Decoder] = []  # wait for the pictures of the next call: a start takes 0.3 s
_spare_lock = threading.Lock()


@atexit.register
def _stop_spare() -> None:
    for decoder in _spare:
        decoder.stop()


def decode_each(contents: Iterable[bytes], size: int, workers: int = 1) -> list[np.ndarray | str]:
    """For each of a few pictures (size, size, 3) uint8, or the reason why there is none.

    Up to `workers` processes, at most four, decode at the same time.
    """
    pictures = list(contents)
    workers = max(1, min(workers, MOST_SPARE, len(pictures)))
    with _spare_lock:
        _spare.extend(Decoder() for _ in range(workers - len(_spare)))
        if workers == 1:
            return [_spare[0].decode(content, size) for content in pictures]
        with ThreadPoolExecutor(workers) as threads:
            parts = [
                threads.submit(_decoded_by, _spare[n], pictures[n::workers], size)
                for n in range(workers)
            ]
            out: list[np.ndarray | str] = [""] * len(pictures)
            for n, part in enumerate(parts):
                out[n::workers] = part.result()
        return out


def _decoded_by(decoder: Decoder, pictures: list[bytes], size: int) -> list[np.ndarray | str]:
    return [decoder.decode(content, size) for content in pictures]


def decoded(
    store: Path, keys: np.ndarray, size: int, workers: int, outcomes: Outcomes
) -> Generator[tuple[str, np.ndarray], None, None]:
    """(key, pixels (size, size, 3) uint8) of the pictures `keys`, in the order of the store.

    `outcomes` counts the pictures that cannot be decoded, or are not in the store, by their reason,
    and what was mended or converted. Raises ArtifactError for a damaged store. The processes end
    with this generator.
    """
    wanted, missing = stored_keys(store, keys)
    with contextlib.closing(decoded_files(wanted, size, workers)) as chunks:
        yield from outcomes.kept(pictures for _, pictures in chunks)
    for key in missing:
        outcomes.drop(NOT_STORED, key)


def decoded_files(
    wanted: Mapping[Path, set[str]], size: int, workers: int
) -> Generator[tuple[Path, Decoded], None, None]:
    """The decoded pictures of files of an image store, in order, in chunks with their file.

    While a caller handles a chunk, the next ones are decoded, also those of the next file. The
    processes end with this generator. Raises ArtifactError for a damaged store.
    """
    total = sum(-(-len(keys) // CHUNK) for keys in wanted.values())
    with _decoders(workers, size) as submit:
        chunks = (
            (path, chunk)
            for path, keys in wanted.items()
            for chunk in read_pictures(path, keys, CHUNK)
        )
        found = _mapped(submit, chunks, workers)
        yield from progress(found, "decode", f"chunks of {CHUNK} pictures", total)


Submit = Callable[[list[tuple[str, bytes]]], Future[Decoded]]


@contextlib.contextmanager
def _decoders(workers: int, size: int) -> Iterator[Submit]:
    """Has a chunk decoded by one of `workers` processes; a thread waits for each of them."""
    decoders = [Decoder() for _ in range(workers)]
    free: SimpleQueue[Decoder] = SimpleQueue()
    for decoder in decoders:
        free.put(decoder)

    def decode_all(chunk: list[tuple[str, bytes]]) -> Decoded:
        decoder = free.get()
        try:
            answers: Decoded = []
            for key, content in chunk:
                notes: set[str] = set()
                answers.append((key, decoder.decode(content, size, notes), notes))
            return answers
        finally:
            free.put(decoder)

    threads = ThreadPoolExecutor(workers)
    try:
        yield lambda chunk: threads.submit(decode_all, chunk)
    finally:
        for decoder in decoders:
            decoder.stop()
        threads.shutdown(cancel_futures=True)
        for decoder in decoders:
            decoder.close()


def _mapped(
    submit: Submit, chunks: Iterable[tuple[Path, list[tuple[str, bytes]]]], workers: int
) -> Iterator[tuple[Path, Decoded]]:
    """The decoded chunks, in order.

    At most 2 * workers + 1 of them are under way at once, so the store need not fit in memory.
    """
    waiting: deque[tuple[Path, Future[Decoded]]] = deque()
    for path, chunk in chunks:
        waiting.append((path, submit(chunk)))
        if len(waiting) > 2 * workers:
            path, future = waiting.popleft()
            yield path, future.result()
    for path, future in waiting:
        yield path, future.result()

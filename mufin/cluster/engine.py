"""Runs a function for each of many items on Ray Data; an item of a lost machine runs again.

Items and answers are small: the data go through the store. A machine without GPUs runs one worker
that has all of its cores, as a stage on one machine has; else there is one worker per GPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mufin import code
from mufin.cluster.settings import ADDRESS
from mufin.errors import MufinError

WINDOW = 4096  # items at once: each is an object in Ray's memory
PATIENCE = 10.0  # seconds for the head node to answer
PASSED_ON = ("MUFIN_PRECISION", "MUFIN_DETERMINISTIC")

Work = Callable[[dict], dict]


@dataclass(frozen=True, slots=True)
class Engine:
    """A cluster to which this process is connected: equal workers, `count` in all."""

    count: int
    cores: int  # of a worker
    gpu: bool  # whether a worker has one

    @property
    def device(self) -> str:
        """cuda or cpu: the device of the workers."""
        return "cuda" if self.gpu else "cpu"

    def each(
        self, create: Callable[..., Work], settings: dict[str, Any], items: Sequence[dict]
    ) -> Iterator[dict]:
        """The answers of `create(**settings)` to the items, in any order; both are JSON.

        `create` is called once per worker. Raises the first MufinError of a worker.
        """
        import ray.data

        arguments = (create, settings, self._environment(), digest_of_code())
        pool = ray.data.ActorPoolStrategy(
            min_size=1, max_size=self.count, max_tasks_in_flight_per_actor=2
        )
        for start in range(0, len(items), WINDOW):
            rows = [{"item": json.dumps(item)} for item in items[start : start + WINDOW]]
            answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                cast(Any, _Worker),  # Ray's types have no classes here
                fn_constructor_args=arguments,
                compute=pool,
                num_cpus=self.cores,
                num_gpus=int(self.gpu),
            )
            for row in answers.iter_rows():
                if row["error"]:
                    raise MufinError(row["error"])
                yield json.loads(row["answer"])

    def _environment(self) -> dict[str, str]:
        own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return own | {"MUFIN_DEVICE": self.device, "MUFIN_WORKERS": str(self.cores)}


class _Worker:
    """What Ray Data holds on a machine and calls for each row."""

    def __init__(
        self,
        create: Callable[..., Work],
        settings: dict[str, Any],
        environment: dict[str, str],
        digest: str,
    ):
        os.environ.update(environment)
        self.create, self.settings, self.digest = create, settings, digest
        self.work: Work | None = None

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """An error that the user can mend is an answer: Ray would wrap it into its own class."""
        try:
            if self.work is None:
                self._check_code()
                self.work = self.create(**self.settings)
            return {"answer": json.dumps(self.work(json.loads(row["item"]))), "error": ""}
        except MufinError as error:
            return {"answer": "", "error": str(error)}

    def _check_code(self) -> None:
        if digest_of_code() != self.digest:
            raise MufinError(
                f"{os.uname().nodename} has other code of MUFIN in {code.ROOT} than this machine; "
                "give all machines the same version, and start Ray there again"
            )


def digest_of_code() -> str:
    """A hash of all files of the library."""
    digest = hashlib.sha256()
    for path in sorted((code.ROOT / "mufin").rglob("*.py")):
        digest.update(f"{path.relative_to(code.ROOT)} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def connected(address: str) -> Iterator[Engine]:
    """The engine at Ray's `address`; raises MufinError if none answers, or Ray is not installed."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise MufinError(
            f"{ADDRESS} is set, but Ray Data is not installed; run `pip install 'ray[data]'`, or "
            "unset it"
        ) from None
    _check_answers(address)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # ours is shown
    with _handlers_kept():
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _silent(address) from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        yield _engine([n["Resources"] for n in ray.nodes() if n["Alive"]])
    finally:
        ray.shutdown()


def _engine(machines: list[dict[str, float]]) -> Engine:
    """Equal workers for machines with these resources (`CPU`, `GPU`)."""
    gpu = os.environ.get("MUFIN_DEVICE") != "cpu" and any(m.get("GPU") for m in machines)
    machines = [m for m in machines if m.get("CPU", 0) >= 1 and (m.get("GPU", 0) >= 1 or not gpu)]
    if not machines:
        raise MufinError(
            f"no machine at {ADDRESS} has a core to work with; start Ray on some with `ray start "
            "--address=<host:port>`"
        )
    if gpu:
        cores = min(int(m["CPU"] // m["GPU"]) or 1 for m in machines)
        return Engine(sum(int(m["GPU"]) for m in machines), cores, gpu)
    cores = min(int(m["CPU"]) for m in machines)
    return Engine(sum(int(m["CPU"]) // cores for m in machines), cores, gpu)


def _check_answers(address: str) -> None:
    """Raises MufinError if nothing listens at host:port; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
        except (OSError, OverflowError):
            raise _silent(address) from None


def _silent(address: str) -> MufinError:
    return MufinError(
        f"{ADDRESS} is {address}, and no Ray cluster answers there; start one with `ray start "
        "--head --port=6379`, or unset it"
    )


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM by one that knows nothing of ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers):
            signal.signal(number, handler)

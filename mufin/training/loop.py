"""The training loop of Modules I and IV, which resumes a killed run to the same weights.

Random numbers depend only on the position in the run: the plan of an epoch on (seed, epoch), the
draws of a step on (seed, epoch, step), and torch's generators are seeded again in each step. So a
checkpoint only needs weights, moments and the mining state of the job. On a CPU a resumed run
equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from mufin import process_group
from mufin.errors import MufinError
from mufin.progress import progress
from mufin.training import distributed
from mufin.training.checkpoints import Updates, load_checkpoint, save_checkpoint
from mufin.training.curves import Curve
from mufin.training.machine import Machine
from mufin.training.schedules import rate_factor


class OnDevice(Protocol):
    """What a job prepares for a step."""

    def to(self, device: torch.device) -> Self: ...


S = TypeVar("S", bound=OnDevice)


class Job(Protocol[S]):
    """What differs between Module I and Module IV. Anchors are the rows that a step is about."""

    name: str  # the section of its settings
    lr: str  # the setting of its learning rate
    epochs: int
    steps: int  # per epoch

    def begin_epoch(self, epoch: int) -> None: ...  # updates what mining needs
    def plan(self, epoch: int) -> list[np.ndarray]: ...  # the anchors of each step
    def prepare(self, anchors: np.ndarray, rng: np.random.Generator) -> S: ...  # in a thread
    def loss(self, step: S) -> Tensor: ...  # of the whole step
    def end_epoch(self, epoch: int) -> dict[str, float]: ...  # further columns of the curve
    def state(self) -> tuple[dict[str, Tensor], dict]: ...  # tensors and facts for a checkpoint
    def load_state(self, tensors: dict[str, Tensor], facts: dict) -> None: ...
    def anchor_table(self) -> str: ...  # the curated table of the anchors: labels or train


def generator(seed: int, *at: int) -> np.random.Generator:
    """The random numbers of a position in a run, such as (epoch, step)."""
    return np.random.default_rng([seed, *at])


def train(
    job: Job[S],
    optimisers: Updates,
    seed: int,
    warmup: int | Literal["epoch"],
    machine: Machine,
    on_epoch: Callable[[Curve], None] | None = None,
    schedule: str = "one_cycle",
) -> Curve:
    """Runs `job` from its last checkpoint to its end; returns the curve, one row per epoch.

    A row holds epoch, loss, seconds, steps_per_second, part and what `end_epoch` returns. `part` is
    how much of the epoch this process ran; it is 0 for epochs before the checkpoint. `on_epoch` is
    called with the curve after each epoch, and once at the start of a resumed run. `warmup` is in
    steps, or `epoch` for those of one epoch; `schedule` is as in `schedules.rate_factor`.
    """
    run = _Run(job, optimisers, seed, warmup, machine, schedule)
    if on_epoch is not None and run.curve:
        on_epoch(run.curve)
    epochs = range(run.epoch, job.epochs)
    for epoch in progress(epochs, job.name, "epochs", start=run.epoch, every=20.0):
        run.train_epoch(epoch)
        if on_epoch is not None:
            on_epoch(run.curve)
        if run.checkpoint_is_due() or run.epoch == job.epochs:
            run.save()
    optimisers.model.eval()
    return run.curve


class _Run(Generic[S]):
    """A training run at a position: `epoch` and `step` are the next to run."""

    def __init__(
        self,
        job: Job[S],
        optimisers: Updates,
        seed: int,
        warmup: int | Literal["epoch"],
        machine: Machine,
        schedule: str,
    ):
        self.job, self.optimisers, self.machine = job, optimisers, machine
        self.seed, self.schedule = seed, schedule
        self.warmup = job.steps if warmup == "epoch" else warmup
        self.path = machine.scratch / "checkpoint.safetensors"
        self.epoch, self.step = 0, 0
        self.curve: Curve = []
        self.losses: list[float] = []  # of the steps of this epoch
        if (found := load_checkpoint(self.path, optimisers)) is not None:
            self._resume(*found)
        self.saved = time.monotonic()  # when the last checkpoint was written

    def _resume(self, tensors: dict[str, Tensor], facts: dict) -> None:
        self.job.load_state(tensors, facts["job"])
        self.epoch, self.step = facts["epoch"], facts["step"]
        self.curve = [row | {"part": 0.0} for row in facts["curve"]]
        self.losses = facts["losses"]

    def save(self) -> None:
        """Writes a checkpoint of this position; under torchrun only the first process does."""
        if process_group.rank() == 0:
            tensors, facts = self.job.state()
            position = {"epoch": self.epoch, "step": self.step, "job": facts}
            learnt = {"curve": self.curve, "losses": self.losses}
            save_checkpoint(self.path, self.optimisers, tensors, position | learnt)
        self.saved = time.monotonic()

    def checkpoint_is_due(self) -> bool:
        return time.monotonic() - self.saved > self.machine.checkpoint_seconds

    def train_epoch(self, epoch: int) -> None:
        """Runs the remaining steps of `epoch` and appends its row to the curve."""
        job, model, first = self.job, self.optimisers.model, self.step
        if first == 0:
            job.begin_epoch(epoch)
        start = time.monotonic()
        model.train()
        self._steps(epoch)
        seconds = time.monotonic() - start
        model.eval()
        steps = job.steps - first
        row = {
            "epoch": epoch + 1,
            "loss": float(np.mean(self.losses)),
            "part": steps / job.steps,
            "seconds": round(seconds, 3),
            "steps_per_second": round(steps / max(seconds, 1e-9), 2),
        }
        self.curve.append(row | job.end_epoch(epoch))
        self.epoch, self.step, self.losses = epoch + 1, 0, []

    def _steps(self, epoch: int) -> None:
        job, on_cpu = self.job, self.machine.device.type == "cpu"
        pending: list[Tensor] = []  # losses still on the device
        for step, prepared in _prefetched(job, self.seed, epoch, self.step, self.machine.device):
            pending.append(self._update(epoch, step, prepared))
            self.step = step + 1
            # Reading a loss waits for the GPU, so there it happens only every 50 steps.
            if on_cpu or len(pending) == 50 or self.step == job.steps:
                self.losses += self._finite(epoch, pending)
                pending = []
                # Several processes write checkpoints between epochs only.
                alone = process_group.world() == 1
                if alone and self.step < job.steps and self.checkpoint_is_due():
                    self.save()

    def _update(self, epoch: int, step: int, prepared: S) -> Tensor:
        """One step of the optimisers; returns the loss, on the device."""
        job, machine, optimisers = self.job, self.machine, self.optimisers
        torch.manual_seed(seed := _torch_seed(self.seed, epoch, step))
        total = job.epochs * job.steps
        factor = rate_factor(self.schedule, epoch * job.steps + step, total, self.warmup)
        optimisers.begin(factor, seed)
        autocast = machine.precision != torch.float32
        with torch.autocast(machine.device.type, machine.precision, autocast):
            loss = job.loss(prepared)
        (loss / process_group.world()).backward()
        distributed.reduce_gradients(optimisers.before, optimisers.sparse_before, optimisers.after)
        optimisers.step(factor)
        return loss.detach()

    def _finite(self, epoch: int, losses: list[Tensor]) -> list[float]:
        """The losses of the last steps as floats; raises MufinError if one is not finite."""
        values = torch.stack(losses).tolist()
        for back, value in enumerate(values):
            if not np.isfinite(value):
                raise MufinError(self._not_finite(epoch, self.step - len(values) + back, value))
        return values

    def _not_finite(self, epoch: int, step: int, value: float) -> str:
        job = self.job
        fp32 = " or set MUFIN_PRECISION=fp32" if self.machine.precision != torch.float32 else ""
        return (
            f"the loss of {job.name} is {value} at epoch {epoch + 1}, step {step + 1} of "
            f"{job.steps}, whose batch begins with {_first_rows(job, job.plan(epoch)[step])}; look "
            f"at these products, and lower {job.lr}{fp32}"
        )


def _torch_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, step, 1]).generate_state(1, np.uint64)[0] >> 1)


def _first_rows(job: Job[S], anchors: np.ndarray, count: int = 8) -> str:
    """The first anchors of a step, as rows of their curated table."""
    table = job.anchor_table()
    what = "labels" if table == "labels" else "datapoints"
    more = ", ..." if len(anchors) > count else ""
    return f"the {what} {', '.join(map(str, anchors[:count]))}{more} (rows of {table}.parquet)"


def _prefetched(
    job: Job[S], seed: int, epoch: int, first: int, device: torch.device
) -> Iterator[tuple[int, S]]:
    """Yields (step, what the job prepared, on the device) from step `first` on.

    A thread prepares up to two steps ahead, so the device does not wait.
    """
    plan = job.plan(epoch)
    ready: queue.Queue[tuple[int, S] | BaseException | None] = queue.Queue(maxsize=2)
    stop = threading.Event()

    def hand_over(item: tuple[int, S] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in range(first, len(plan)):
                if stop.is_set():
                    return
                hand_over((step, job.prepare(plan[step], generator(seed, epoch, step))))
            hand_over(None)  # the end
        except BaseException as error:  # raised again in the training loop
            hand_over(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            step, prepared = item
            yield step, prepared.to(device)
    finally:
        stop.set()
        thread.join()

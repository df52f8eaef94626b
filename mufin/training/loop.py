"""The training loop of Modules I and IV: prefetched steps, checkpoints, and the same weights whatever interrupts it.

Nothing random has state: the plan of an epoch comes from (seed, epoch), what a step draws from (seed, epoch, step), and
torch's generators are seeded anew each step. So a checkpoint needs weights, moments and the job's mining state only,
and a resumed run repeats an unbroken one bit for bit on a CPU.
"""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, Protocol

import numpy as np
import torch
from torch import Tensor

from mufin.errors import MufinError
from mufin.progress import progress
from mufin.training import distributed
from mufin.training.checkpoints import load_checkpoint, save_checkpoint
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, one_cycle


class Job(Protocol):
    """What differs between Module I and Module IV."""

    name: str  # of its section of params
    epochs: int
    steps: int  # steps an epoch

    def begin_epoch(self, epoch: int) -> None: ...  # refresh what mining needs
    def plan(self, epoch: int) -> list[np.ndarray]: ...  # the anchors of each step
    def prepare(
        self, anchors: np.ndarray, rng: np.random.Generator
    ): ...  # on a thread; has .to(device)
    def loss(self, prepared) -> Tensor: ...  # of the whole step
    def end_epoch(self, epoch: int) -> dict[str, float]: ...  # further columns of the curve
    def state(self) -> tuple[dict[str, Tensor], dict]: ...
    def load_state(self, tensors: dict[str, Tensor], facts: dict) -> None: ...
    def anchor_table(self) -> str: ...  # curated table whose rows the anchors are: labels or train


def generator(seed: int, *at: int) -> np.random.Generator:
    return np.random.default_rng([seed, *at])


def train(
    job: Job,
    optimisers: Optimisers,
    seed: int,
    warmup: int,
    machine: Machine,
    on_epoch: Callable[[list[dict[str, float]]], None] | None = None,
) -> list[dict[str, float]]:
    """Run `job` from its last checkpoint to its end; returns the curve, one row per epoch.

    A row: epoch, loss, seconds, steps per second, and `part`: how much of the epoch this process ran (0 for an epoch of
    the run before the checkpoint). `on_epoch` is given the curve so far after each epoch.
    """
    path, model = machine.scratch / "checkpoint.safetensors", optimisers.model
    curve, epoch, step = _resume(path, job, optimisers)
    losses: list[float] = list(curve.pop()["losses"]) if curve and "losses" in curve[-1] else []
    saved = time.monotonic()

    def save(epoch: int, step: int, rows: list[dict]) -> None:
        if distributed.rank() == 0:
            tensors, facts = job.state()
            save_checkpoint(
                path,
                optimisers,
                tensors,
                {"epoch": epoch, "step": step, "curve": rows, "job": facts},
            )

    if on_epoch is not None and curve:
        on_epoch(curve)
    for epoch in progress(range(epoch, job.epochs), job.name, "epochs", start=epoch, every=20.0):
        if step == 0:
            job.begin_epoch(epoch)
        start, first = time.monotonic(), step
        pending: list[Tensor] = []
        model.train()
        for step, prepared in _prefetched(job, seed, epoch, step, machine.device):
            torch.manual_seed(_torch_seed(seed, epoch, step))
            with torch.autocast(
                machine.device.type, machine.precision, machine.precision != torch.float32
            ):
                loss = job.loss(prepared)
            (loss / distributed.world()).backward()
            distributed.reduce_gradients(
                optimisers.before, optimisers.sparse_before, optimisers.after
            )
            optimisers.step(one_cycle(epoch * job.steps + step, job.epochs * job.steps, warmup))
            pending.append(loss.detach())
            step += 1
            if machine.device.type == "cpu" or len(pending) == 50 or step == job.steps:
                losses += _finite(pending, job, epoch, step, machine.precision)
                pending = []
                if (
                    distributed.world() == 1
                    and step < job.steps
                    and time.monotonic() - saved > machine.checkpoint_seconds
                ):
                    save(epoch, step, curve + [{"losses": losses}])
                    saved = time.monotonic()
        seconds = time.monotonic() - start
        model.eval()
        ran = job.steps - first
        curve.append(
            {
                "epoch": epoch + 1,
                "loss": float(np.mean(losses)),
                "part": ran / job.steps,
                "seconds": round(seconds, 3),
                "steps_per_second": round(ran / max(seconds, 1e-9), 2),
                **job.end_epoch(epoch),
            }
        )
        losses, step = [], 0
        if on_epoch is not None:
            on_epoch(curve)
        if time.monotonic() - saved > machine.checkpoint_seconds or epoch + 1 == job.epochs:
            save(epoch + 1, 0, curve)
            saved = time.monotonic()
    model.eval()
    return curve


def _resume(path: Path, job: Job, optimisers: Optimisers) -> tuple[list[dict], int, int]:
    found = load_checkpoint(path, optimisers)
    if found is None:
        return [], 0, 0
    tensors, facts = found
    job.load_state(tensors, facts["job"])
    return [row | {"part": 0.0} for row in facts["curve"]], facts["epoch"], facts["step"]


def _torch_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, step, 1]).generate_state(1, np.uint64)[0] >> 1)


def _finite(
    losses: list[Tensor], job: Job, epoch: int, step: int, precision: torch.dtype
) -> list[float]:
    """The losses as floats; raises MufinError at the first that is not finite. One wait for the device, not one a step."""
    values = torch.stack(losses).tolist()
    for back, value in enumerate(values):
        if not np.isfinite(value):
            at = step - len(values) + back
            remedy = f"lower {job.name}.lr" + (
                " or set MUFIN_PRECISION=fp32" if precision != torch.float32 else ""
            )
            raise MufinError(
                f"the loss of {job.name} is {value} at epoch {epoch + 1}, step {at + 1} of {job.steps}, whose "
                f"batch begins with {_first_rows(job, job.plan(epoch)[at])}; look at these products, and {remedy}"
            )
    return values


def _first_rows(job: Job, anchors: np.ndarray, count: int = 8) -> str:
    """The first anchors of a step, by their rows of the curated tables."""
    table = job.anchor_table()
    what = "labels" if table == "labels" else "datapoints"
    more = ", ..." if len(anchors) > count else ""
    return f"the {what} {', '.join(map(str, anchors[:count]))}{more} (rows of {table}.parquet)"


def _prefetched(
    job: Job, seed: int, epoch: int, first: int, device: torch.device
) -> Iterator[tuple[int, object]]:
    """(step, prepared on the device) from `first` on, made by a thread two steps ahead, so that the device need not wait."""
    plan = job.plan(epoch)
    ready: queue.Queue = queue.Queue(maxsize=2)
    stop = threading.Event()

    def hand_over(item: tuple) -> None:
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
            hand_over((None, None))
        except BaseException as error:  # told to the loop, which raises it
            hand_over((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            step, prepared = ready.get()
            if step is None:
                if prepared is not None:
                    raise prepared
                return
            yield step, prepared.to(device)
    finally:
        stop.set()
        thread.join()

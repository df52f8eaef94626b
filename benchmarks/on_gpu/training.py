"""Modules I and IV on one GPU: bf16 against fp32, deterministic algorithms, speed at full size."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import torch

from benchmarks.on_gpu import catalog
from benchmarks.on_gpu.catalog import Sizes
from benchmarks.on_gpu.floors import TRAIN, Busy, Ceilings
from benchmarks.on_gpu.running import Row
from mufin import devices
from mufin.artifacts.curated import Split
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.embedding import embed
from mufin.nn.mufin import Mufin
from mufin.nn.weights import weights_of
from mufin.training.checkpoints import save_checkpoint
from mufin.training.finetuning import Finetuning
from mufin.training.loop import Job, train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, Rates
from mufin.training.pretraining import Pretraining

Tell = Callable[[Row], None]
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Place:
    """Sizes, folder and ceilings of a part."""

    sizes: Sizes
    tiny: bool  # a rehearsal on a CPU, whose figures mean nothing
    folder: Path  # scratch of the whole benchmark
    ceilings: Ceilings | None  # None where they could not be measured

    def store(self, model: Mufin, images: int) -> DescriptorStore:
        """The descriptors of all products with `images` distinct images, written if missing.

        They are in GPU memory if they fit, as in every stage.
        """
        folder = self.folder / f"precomputed-{images}"
        catalog.write_descriptors(self.sizes, model, folder, images)
        return DescriptorStore(folder, ["text", "image"], devices.device())

    @contextlib.contextmanager
    def machine(self, device: torch.device, precision: torch.dtype) -> Iterator[Machine]:
        """A training run with a scratch folder of its own, without checkpoints before its end."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            yield Machine(device, precision, Path(scratch), 1e9)


class Watched:
    """A job whose last epoch is profiled."""

    def __init__(self, job: Job, busy: Busy):
        self.job, self.busy = job, busy

    def __getattr__(self, name: str):
        return getattr(self.job, name)

    def begin_epoch(self, epoch: int) -> None:
        self.job.begin_epoch(epoch)
        if epoch + 1 == self.job.epochs:
            self.busy.start()

    def end_epoch(self, epoch: int) -> dict[str, float]:
        if epoch + 1 == self.job.epochs:
            self.busy.stop()
        return self.job.end_epoch(epoch)


# Jobs with the settings of the paper's profile


def pretraining(
    at: Place, model: Mufin, store, steps: int, epochs: int, where: Machine
) -> tuple[Pretraining, Optimisers]:
    """Module I with `steps` steps per epoch, and its optimisers.

    Positives are random: mined ones do not cost more per step.
    """
    sizes, batch = at.sizes, at.sizes.batch
    s = dataclasses.replace(
        catalog.profile("paper").pretrain,
        epochs=epochs,
        batch_size=batch,
        random_epochs=epochs,
    )
    job = Pretraining(
        model,
        store,
        Split(
            catalog.datapoint_products(sizes),
            catalog.truth_by_label(sizes, steps * batch),
            catalog.no_pairs(sizes.datapoints),
        ),
        catalog.label_products(sizes),
        s,
        0,
        where,
    )
    rates = Rates(encoder=s.lr, new=s.lr, gates=s.lr, lexical=s.lr, attention=s.lr, free=s.lr)
    return job, Optimisers(model, rates, s.weight_decay, with_cross_attention=False)


def finetuning(
    at: Place, model: Mufin, store, steps: int, epochs: int, dense_tables: bool
) -> tuple[Finetuning, Optimisers]:
    """Module IV with `steps` steps per epoch and random shortlists of 100; its optimisers."""
    sizes, batch = at.sizes, at.sizes.finetune_batch
    count = steps * batch
    s = dataclasses.replace(catalog.profile("paper").finetune, epochs=epochs, batch_size=batch)
    truth = catalog.random_lists(count, round(catalog.LABELS_PER_DATAPOINT), sizes.labels, 0)
    shortlist = catalog.random_lists(count, 100, sizes.labels, 1)
    job = Finetuning(
        model,
        store,
        Split(catalog.datapoint_products(sizes)[:count], truth, catalog.no_pairs(count)),
        catalog.label_products(sizes),
        shortlist,
        s,
        0,
        lambda _: {},
    )
    rates = Rates(encoder=s.lr, new=s.lr, gates=s.lr, lexical=s.lr, attention=s.lr, free=s.lr)
    return job, Optimisers(model, rates, s.weight_decay, True, dense_tables)


# bf16 against fp32; deterministic algorithms and the time that they cost


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a short training run."""

    losses: np.ndarray  # (epochs,) mean loss of each
    state: dict[str, torch.Tensor]
    before: np.ndarray  # (n, D) x^1 of some products before training, in full float32
    vectors: np.ndarray  # (n, D) the same after training
    seconds: float  # of the steps of all epochs but the first


def precision(at: Place, tell: Tell) -> None:
    """50 steps of Modules I and IV from one start: bf16 against full float32 (TF32 off), and twice
    with deterministic algorithms. Without dropout, which depends on the precision."""
    small = catalog.TINY_COMPARED if at.tiny else catalog.FULL_COMPARED
    at = dataclasses.replace(at, sizes=small, folder=at.folder / "compared")
    at.folder.mkdir()
    start = {"Module I": catalog.network(small, dropout=False)}
    start["Module IV"] = catalog.with_classifiers(copy.deepcopy(start["Module I"]), small)
    plain = {}
    for name, model in start.items():
        full, half = (_short_run(at, model, p, False) for p in (torch.float32, torch.bfloat16))
        _tell_difference(name, full, half, tell)
        plain[name] = full.seconds, half.seconds
    for name, model in start.items():
        again = [_short_run(at, model, torch.float32, True) for _ in range(2)]
        differ = sum(not torch.equal(t, again[1].state[n]) for n, t in again[0].state.items())
        tell(
            Row(
                figure=f"{name}, deterministic fp32 twice: tensors that differ",
                value=differ,
                unit="tensors",
                aim=0,
                note=f"of {len(again[0].state)}",
            )
        )
        half = _short_run(at, model, torch.bfloat16, True)
        for dtype, seconds, without in zip(
            ("fp32", "bf16"), (again[1].seconds, half.seconds), plain[name]
        ):
            tell(
                Row(
                    figure=f"{name}, time with deterministic algorithms, {dtype}",
                    value=seconds / without,
                    unit="x the time without",
                )
            )


def _short_run(at: Place, start: Mufin, dtype: torch.dtype, deterministic: bool) -> Run:
    """Ten epochs of five steps from the weights of `start`; Module IV if it has classifiers."""
    device, sizes, model = devices.device(), at.sizes, copy.deepcopy(start)
    store = at.store(model, sizes.held_images)
    torch.set_float32_matmul_precision("highest")  # after devices.device, which allows TF32
    model.to(device)

    def vectors() -> np.ndarray:
        some = np.arange(min(256, sizes.products))
        return embed(model, store, some, device, torch.float32).vectors

    before = vectors()
    torch.use_deterministic_algorithms(deterministic)
    try:
        with at.machine(device, dtype) as where:
            if model.classifiers is None:
                job, optimisers = pretraining(at, model, store, sizes.steps, 10, where)
            else:
                job, optimisers = finetuning(at, model, store, sizes.steps, 10, False)
            curve = train(job, optimisers, 0, 5, where)
    finally:
        torch.use_deterministic_algorithms(False)
    return Run(
        np.array([row["loss"] for row in curve]),
        weights_of(model),
        before,
        vectors(),
        sum(row["seconds"] for row in curve[1:]),
    )


def _tell_difference(name: str, full: Run, half: Run, tell: Tell) -> None:
    broken = sum(not torch.isfinite(t).all() for t in half.state.values())
    tell(
        Row(
            figure=f"{name}, bf16: tensors with NaN or infinity after 50 steps",
            value=broken,
            unit="tensors",
            aim=0,
            note=f"of {len(half.state)}",
        )
    )
    relative = np.abs(half.losses - full.losses) / np.abs(full.losses)
    tell(
        Row(
            figure=f"{name}, bf16 against fp32: loss",
            value=100 * float(relative.max()),
            unit="% of fp32's",
            note="largest of ten epochs of five steps; fp32 "
            f"{full.losses[0]:.4f} to {full.losses[-1]:.4f}",
        )
    )
    apart = np.linalg.norm(half.vectors - full.vectors, axis=1).mean()
    moved = np.linalg.norm(full.vectors - full.before, axis=1).mean()
    tell(
        Row(
            figure=f"{name}, bf16 against fp32: learnt vectors",
            value=100 * float(apart),
            unit="% of their length",
            note=f"mean; training moved them by {100 * moved:.2f} %",
        )
    )


# Speed at the sizes of MM-AmazonTitles-300K


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A way of training whose speed is measured."""

    title: str
    epoch_steps: int
    epochs: int  # of the paper
    aim: float | None = None  # seconds per epoch
    streamed: bool = False  # whether inputs come from host memory
    table_bytes: float = 0.0  # read and written in eta and alpha beyond the step's rows


def module_one(at: Place, tell: Tell) -> None:
    """Module I at the sizes of MM-AmazonTitles-300K; inputs in GPU memory, and from host memory."""
    sizes = at.sizes
    model = catalog.network(sizes).to(devices.device())
    for place, images, steps in (
        ("held in GPU memory", sizes.held_images, sizes.steps),
        ("streamed from host memory", sizes.streamed_images, sizes.streamed_steps),
    ):
        store = at.store(model, images)

        def job(where: Machine, steps: int = steps, store=store):
            return pretraining(at, model, store, steps, 2, where)

        question = Question(
            title=f"Module I, {place}",
            epochs=200,
            aim=35.0,
            epoch_steps=-(-sizes.labels // sizes.batch),
            streamed=not isinstance(store.images, torch.Tensor),
        )
        seconds, optimisers = _tell_speed(at, question, job, tell)
        if images == sizes.held_images:
            _tell_refresh(at, model, store, seconds * question.epoch_steps, tell)
            _tell_checkpoint(at, "Module I", optimisers, tell)
        del optimisers  # their moments must not count as memory of the next question
    _tell_attention(tell)


def _tell_refresh(at: Place, model: Mufin, store, epoch_seconds: float, tell: Tell) -> None:
    """The time of a refresh: every fifth epoch, mining embeds all labels and datapoints."""
    count = min(8192, at.sizes.products)
    rng = np.random.default_rng(0)
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        embed(
            model,
            store,
            rng.permutation(at.sizes.products)[:count],
            devices.device(),
            devices.precision(),
        )
    rate = count / (time.perf_counter() - start)
    refresh = (at.sizes.labels + at.sizes.datapoints) / rate
    tell(
        Row(
            figure="Module I, embedding (a refresh of hard positives): rate",
            value=rate,
            unit="products/s",
        )
    )
    tell(
        Row(
            figure="Module I, held in GPU memory: 200 epochs, 40 refreshes",
            unit="hours",
            value=(200 * epoch_seconds + 40 * refresh) / 3600,
            note=f"computed: 40 refreshes of {refresh:.0f} s",
        )
    )


def module_four(at: Place, tell: Tell) -> None:
    """Module IV at the same sizes; eta and alpha updated by rows, and all of them (dense AdamW)."""
    sizes = at.sizes
    model = catalog.with_classifiers(catalog.network(sizes), sizes).to(devices.device())
    store = at.store(model, sizes.held_images)
    table = sizes.labels * (sizes.dim + 1) * 4
    for way, dense in (("by rows (SparseAdam)", False), ("dense (fused AdamW)", True)):

        def job(where: Machine, steps: int = sizes.steps, dense=dense):
            return finetuning(at, model, store, steps, 2, dense)

        # dense AdamW: the gradient is zeroed; it, p, m and v are read; p, m and v are written
        question = Question(
            title=f"Module IV, tables {way}",
            epochs=20,
            epoch_steps=-(-sizes.datapoints // sizes.finetune_batch),
            table_bytes=8.0 * table * dense,
        )
        _, optimisers = _tell_speed(at, question, job, tell)
        if dense:
            _tell_checkpoint(at, "Module IV", optimisers, tell)
        del optimisers


def _tell_speed(
    at: Place, question: Question, make: Callable, tell: Tell
) -> tuple[float, Optimisers]:
    """Runs a job's two epochs, reports the second; returns seconds per step, and the optimisers."""
    device, title, epoch = devices.device(), question.title, question.epoch_steps
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with at.machine(device, devices.precision()) as where:
        job, optimisers = make(where)
        row = train(job, optimisers, 0, 1000, where)[-1]
    seconds, work = row["seconds"] / job.steps, _work(job)
    floor = _floor(at.ceilings, work, question)
    tell(
        Row(
            figure=f"{title}: one step",
            value=1000 * seconds,
            unit="ms",
            floor=floor and 1000 * floor,
            note=f"{work.products:.0f} products, {work.images:.0f} images, "
            f"{work.flop / 1e12:.3g} TFLOP",
        )
    )
    tell(Row(figure=f"{title}: steps", value=1 / seconds, unit="steps/s"))
    tell(
        Row(
            figure=f"{title}: preparing a step on the host",
            value=1000 * work.seconds,
            unit="ms",
            note="while the GPU works",
        )
    )
    tell(Row(figure=f"{title}: images", value=work.images / seconds, unit="images/s"))
    tell(
        Row(
            figure=f"{title}: an epoch of {epoch} steps",
            value=seconds * epoch,
            unit="s",
            floor=floor and floor * epoch,
            aim=question.aim,
        )
    )
    hours = epoch * question.epochs / 3600
    tell(
        Row(
            figure=f"{title}: {question.epochs} epochs",
            value=seconds * hours,
            unit="hours",
            floor=floor and floor * hours,
        )
    )
    if at.ceilings:
        tell(
            Row(
                figure=f"{title}: model FLOP utilisation",
                value=100 * work.flop / seconds / at.ceilings.bf16,
                unit="% of a bf16 product's rate",
            )
        )
    tell(peak_memory(title))
    _tell_wait(at, title, make, tell)
    return seconds, optimisers


def peak_memory(title: str) -> Row:
    """The most GPU memory in use since the last reset."""
    if not torch.cuda.is_available():
        return Row(figure=f"{title}: peak GPU memory", value=None, unit="GiB", note="no GPU")
    peak = torch.cuda.max_memory_allocated() / 2**30
    return Row(figure=f"{title}: peak GPU memory", value=peak, unit="GiB")


@dataclass(frozen=True, slots=True)
class StepWork:
    """What a step needs: means of a few steps."""

    products: float
    images: float
    flop: float  # forward and backward, without padding
    bytes: float  # of its inputs
    seconds: float  # of the thread that prepares the step


def _work(job: Pretraining | Finetuning, steps: int = 3) -> StepWork:
    text, image = catalog.text_work(job.model), catalog.image_work(job.model)
    rows = []
    for number, anchors in enumerate(job.plan(0)[:steps]):
        start = time.perf_counter()
        step = job.prepare(anchors, np.random.default_rng(number))
        seconds = time.perf_counter() - start
        lengths, images = step.batch.text_lengths.cpu().numpy(), len(step.batch.image_bag)
        flop = TRAIN * (text.flop(lengths.astype(np.float64)) + image.flop(images))
        size = step.batch.images[0].numel() * step.batch.images.element_size() if images else 0
        rows.append((step.count, images, flop, images * size, seconds))
    return StepWork(*np.mean(rows, axis=0).tolist())


def _floor(ceilings: Ceilings | None, work: StepWork, question: Question) -> float | None:
    """Seconds that a step takes at the card's highest rates: the longer of its matrix products and
    the transfer of its inputs, plus the traffic of the tables."""
    if ceilings is None:
        return None
    inputs = 2 * work.bytes / ceilings.copy  # read and written by the gathering
    if question.streamed:
        inputs = work.bytes / ceilings.host
    return max(work.flop / ceilings.bf16, inputs) + question.table_bytes / ceilings.copy


def _tell_wait(at: Place, title: str, make: Callable, tell: Tell) -> None:
    figure = f"{title}: share of time the GPU waits"
    with at.machine(devices.device(), devices.precision()) as where:
        busy = Busy(where.device, where.scratch)
        job, optimisers = make(where, steps=max(at.sizes.streamed_steps, 2))
        train(Watched(job, busy), optimisers, 0, 1000, where)
    if busy.share is None:
        tell(Row(figure=figure, value=None, unit="%", note=busy.reason))
    else:
        tell(
            Row(
                figure=figure,
                value=100 * (1 - busy.share),
                unit="%",
                note=f"profiled: {1000 * busy.seconds / job.steps:.0f} ms per step",
            )
        )


def _tell_checkpoint(at: Place, title: str, optimisers: Optimisers, tell: Tell) -> None:
    with at.machine(CPU, torch.float32) as where:
        path = where.scratch / "checkpoint.safetensors"
        start = time.perf_counter()
        save_checkpoint(path, optimisers, {}, {})
        tell(
            Row(
                figure=f"{title}: one checkpoint",
                value=time.perf_counter() - start,
                unit="s",
                note=f"{path.stat().st_size / 2**20:.0f} MB in {_place_of(path)}; one per minute "
                "by default",
            )
        )


def _place_of(path: Path) -> str:
    return "memory (/dev/shm)" if path.is_relative_to("/dev/shm") else "a file on disk"


def _tell_attention(tell: Tell) -> None:
    """Attention of titles, forward and backward, in batches that each have a new size: with cuDNN's
    kernels, which `devices.device` turns off, and with the others."""
    device = devices.device()
    for name, on in (("without cuDNN", False), ("with cuDNN", True)):
        torch.backends.cuda.enable_cudnn_sdp(on)
        seconds = []
        for count in range(3000, 3005) if device.type == "cuda" else range(3, 6):
            q = torch.randn(
                count, 12, 32, 64, device=device, dtype=torch.bfloat16, requires_grad=True
            )
            mask = torch.rand(count, 1, 32, 32, device=device) < 0.9
            start = time.perf_counter()
            out = torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
            out.float().sum().backward()
            float(q.grad.float().sum())  # waits for the device
            seconds.append(time.perf_counter() - start)
        tell(
            Row(
                figure=f"attention in a batch of a new size, {name}",
                unit="ms",
                value=1000 * float(np.median(seconds[1:])),
                note="median of sizes after the first",
            )
        )
    torch.backends.cuda.enable_cudnn_sdp(False)

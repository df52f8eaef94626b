"""Tiny jobs of Modules I and IV over given descriptors, and a way to kill them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from mufin.artifacts.curated import Split
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.embedding import embed
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.ragged import Lists
from mufin.training.finetuning import Finetuning
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, Rates
from mufin.training.pretraining import Pretraining
from tests.support.bags import GivenStore, random_graph, tiny_mufin

CPU = torch.device("cpu")
N, L, WIDTH = 40, 24, 12  # datapoints, labels, numbers of a descriptor
RATES = Rates(encoder=1e-2, new=1e-2, gates=1e-2, lexical=1e-2, attention=1e-2, free=1e-1)
PRETRAIN = dict(
    loss="triplet",
    gamma=0.2,
    temperature=0.1,
    negative_weights="equal",
    batching="labels",
    batch_size=8,
    positives=2,
    negatives=3,
    positive_threshold=0.9,
    hard_positives=True,
    hard_negatives=True,
    random_epochs=1,
    refresh_epochs=2,
    epochs=5,
)
FINETUNE = dict(
    loss="hinge",
    candidates="shortlist",
    free_precision="fp32",
    gamma=0.2,
    temperature=0.1,
    positives_from="all",
    positives=2,
    negatives=4,
    random_negatives=2,
    batch_size=8,
    epochs=4,
    train_labels=True,
    select="valid",
)


class Killed(Exception):
    """Stands for a kill of the process."""


def machine(folder: Path, seconds: float = 0.0) -> Machine:
    """A CPU. `seconds` between checkpoints: 0 saves after each step, 1e9 at the end alone."""
    folder.mkdir(exist_ok=True)
    return Machine(torch.device("cpu"), torch.float32, folder, seconds)


def pretraining(where: Machine, dropout: float = 0.1, **changes) -> tuple[Pretraining, Optimisers]:
    """Module I of N datapoints and L labels, with `changes` to the settings PRETRAIN."""
    model = tiny_mufin(WIDTH, dropout=dropout)
    truth = random_graph(N, L)
    job = Pretraining(
        model,
        GivenStore(N, WIDTH),
        Split(np.arange(N), truth, Lists.of_rows([[]] * N)),
        np.arange(L),
        SimpleNamespace(**PRETRAIN | changes),
        3,
        where,
    )
    return job, Optimisers(model, RATES, 0.01, with_cross_attention=False)


def finetuning(
    where: Machine,
    dropout: float = 0.1,
    dense_tables: bool = False,
    half_free: bool = False,
    **changes,
) -> tuple[Finetuning, Optimisers]:
    """Module IV with `changes` to the settings FINETUNE. The second epoch is the best on valid."""
    model = tiny_mufin(WIDTH, dropout=dropout)
    torch.manual_seed(1)
    model.classifiers = LabelClassifiers(L, model.dim)
    truth, rng = random_graph(N, L), np.random.default_rng(0)
    shortlist = Lists.of_rows([rng.permutation(L)[:12] for _ in range(N)])
    calls = iter([0.3, 0.9, 0.5, 0.1, 0.1, 0.1])
    job = Finetuning(
        model,
        GivenStore(N, WIDTH),
        Split(np.arange(N), truth, Lists.of_rows([[]] * N)),
        np.arange(L),
        shortlist,
        SimpleNamespace(**FINETUNE | changes),
        3,
        lambda m: {"P@1": next(calls)},
        lambda m: embed(m, job.store, np.arange(L), CPU, torch.float32).vectors,
    )
    optimisers = Optimisers(model, RATES, 0.01, True, dense_tables, half_free=half_free)
    job.eta = optimisers.eta
    return job, optimisers


def dense_finetuning(where: Machine, dropout: float = 0.1, **changes):
    """Module IV with AdamW over all rows of eta and alpha."""
    return finetuning(where, dropout, True, **changes)


def half_finetuning(where: Machine, dropout: float = 0.1, **changes):
    """Module IV over all labels without A_C, with eta in bfloat16."""
    settings = {"loss": "softmax", "candidates": "all", "free_precision": "bf16"} | changes
    job, optimisers = finetuning(where, dropout, True, True, **settings)
    job.model.cross_attention = NoCrossAttention()
    return job, optimisers


def held_finetuning(where: Machine, dropout: float = 0.1, **changes):
    """The same, with z of all labels computed once per epoch."""
    return half_finetuning(where, dropout, train_labels=False, **changes)


def killed_after(job: Pretraining | Finetuning, steps: int) -> Pretraining | Finetuning:
    """The job, which raises in the middle of step `steps`, as a kill would end it."""
    loss, count = job.loss, iter(range(10**6))

    def dies(prepared):
        if next(count) == steps:
            raise Killed
        return loss(prepared)

    job.loss = dies
    return job

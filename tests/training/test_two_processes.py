"""Modules I and IV in two processes (gloo): the losses, weights and chosen epoch of one process.

All jobs run in one start of two processes, which takes longer than the jobs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mufin import process_group
from mufin.artifacts.curated import Split
from mufin.nn import embedding
from mufin.nn.embedding import embed_vectors
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.nn.weights import weights_of
from mufin.ragged import Lists
from mufin.ranking.validation import valid_figures
from mufin.training.contraction import COLUMN
from mufin.training.finetuning import Finetuning
from mufin.training.loop import train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers
from tests.nn.test_two_layers import job_of
from tests.support.bags import random_graph
from tests.support.processes import in_processes
from tests.support.training import CPU, L, finetuning, half_finetuning, machine, pretraining

SHARED = 8  # products embedded at once, so that each process gets a share
VALID = 30  # datapoints
DROPOUT = "dropout"  # drawn otherwise in two processes than in one
OVER_ALL = {"loss": "softmax", "candidates": "all", "select": "last"}


def over_all(where: Machine) -> tuple[Finetuning, Optimisers]:
    """The softmax over all labels with A_C, in blocks of labels."""
    job, optimisers = finetuning(where, 0.0, **OVER_ALL)
    job.block = 5
    return job, optimisers


def over_all_vectors(where: Machine) -> tuple[Finetuning, Optimisers]:
    """The same without A_C: products of vectors."""
    job, optimisers = over_all(where)
    job.model.cross_attention = NoCrossAttention()
    return job, optimisers


def in_half(where: Machine) -> tuple[Finetuning, Optimisers]:
    """The softmax over all labels that updates eta, in bfloat16."""
    job, optimisers = half_finetuning(where, 0.0, select="last")
    job.block = 5
    return job, optimisers


def in_half_held(where: Machine) -> tuple[Finetuning, Optimisers]:
    """The same with z of all labels computed once per epoch, by both processes."""
    job, optimisers = half_finetuning(where, 0.0, select="last", train_labels=False)
    job.embed_labels = lambda m: embed_vectors([m], job.store, np.arange(L), CPU, torch.float32)[0]
    return job, optimisers


def chosen(where: Machine) -> tuple[Finetuning, Optimisers]:
    """Module IV that keeps the epoch with the best figures on valid, which both compute."""
    job, optimisers = finetuning(where, 0.0, epochs=6)
    split = Split(np.arange(VALID), random_graph(VALID, L, seed=4), Lists.of_rows([[]] * VALID))
    labels = np.arange(L)
    job.validate = lambda m: valid_figures(m, job.store, labels, split, None, CPU, torch.float32)
    return job, optimisers


JOBS: dict[str, Callable] = {
    "pretrain": lambda where: pretraining(where, 0.0),
    "pretrain, soft triplet": lambda where: pretraining(where, 0.0, loss="soft_triplet"),
    "pretrain, two layers": lambda where: job_of(pretraining, where),
    "finetune": lambda where: finetuning(where, 0.0, select="last"),
    "all labels": over_all,
    "all labels, vectors": over_all_vectors,
    "bf16": in_half,
    "bf16, held labels": in_half_held,
    "chosen epoch": chosen,
    DROPOUT: lambda where: finetuning(where, 0.3, select="last"),
}


def run(name: str, folder: Path) -> None:
    """Leaves the weights and the curve of this process in `folder`."""
    where = machine(folder, 1e9)
    job, optimisers = JOBS[name](where)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "BATCH", SHARED)
        curve = train(job, optimisers, 5, 10, where)
    if isinstance(job, Finetuning):
        job.finish()
    rank = process_group.rank()
    save_file(weights_of(job.model), folder / f"{rank}.safetensors")
    learnt = [{k: v for k, v in row.items() if "second" not in k} for row in curve]
    (folder / f"{rank}.json").write_text(json.dumps(learnt))


SCRIPT = """
import sys, torch
from pathlib import Path
from mufin import process_group
from tests.training.test_two_processes import JOBS, run
torch.set_num_threads(1)
process_group.start(torch.device("cpu"))
for name in JOBS:
    run(name, Path(sys.argv[1]) / name)
process_group.barrier()
process_group.leave()
"""

Learnt = tuple[dict[str, torch.Tensor], list[dict[str, float]]]  # weights and curve


@pytest.fixture(scope="module")
def learnt(tmp_path_factory) -> dict[str, list[Learnt]]:
    """Of each job, what one process has learnt, and each of two."""
    home = tmp_path_factory.mktemp("processes")
    script = home / "script.py"
    script.write_text(SCRIPT)
    for world in (1, 2):
        (home / str(world)).mkdir()
        in_processes(world, script, home / str(world))
    places = [(1, 0), (2, 0), (2, 1)]
    return {
        name: [
            (
                load_file(home / f"{world}/{name}/{rank}.safetensors"),
                json.loads((home / f"{world}/{name}/{rank}.json").read_text()),
            )
            for world, rank in places
        ]
        for name in JOBS
    }


@pytest.mark.parametrize("name", JOBS)
def test_both_processes_have_the_same_bytes(learnt, name):
    """Of all weights: also of eta in bfloat16, whose rounding is drawn in each of them."""
    _, (one, curve), (other, other_curve) = learnt[name]
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert curve == other_curve


@pytest.mark.parametrize("name", [name for name in JOBS if name != DROPOUT])
def test_two_processes_have_the_losses_and_weights_of_one(learnt, name):
    (one, curve), (two, curve_of_two), _ = learnt[name]
    losses, losses_of_two = ([row["loss"] for row in c] for c in (curve, curve_of_two))
    assert losses_of_two == pytest.approx(losses, rel=1e-4)
    if COLUMN in curve[0]:
        means, means_of_two = ([row[COLUMN] for row in c] for c in (curve, curve_of_two))
        assert means_of_two == pytest.approx(means, abs=1e-4)
    for key in one:
        # The true gradient of key.bias is 0 (softmax is blind to it); AdamW blows up its rounding
        if key.endswith("key.bias") or one[key].dtype == torch.bfloat16:
            continue
        assert torch.allclose(one[key], two[key], atol=2e-4), (
            key,
            (one[key] - two[key]).abs().max(),
        )


@pytest.mark.parametrize("name", ["bf16", "bf16, held labels"])
def test_eta_in_bfloat16_is_that_of_one_process_but_for_roundings(learnt, name):
    """Gradients differ by the order of sums; a number close to its draw is then rounded up, not
    down.
    """
    (one, _), (two, _), _ = learnt[name]
    eta, eta_of_two = (w["classifiers.free.weight"] for w in (one, two))
    assert eta.dtype == torch.bfloat16
    same = (eta == eta_of_two).float().mean()
    assert same >= 0.98
    assert torch.allclose(eta.float(), eta_of_two.float(), atol=2e-3)


def test_the_epoch_that_valid_chooses_is_that_of_one_process(learnt):
    curves = [curve for _, curve in learnt["chosen epoch"]]
    figures = [[(row["valid_P@1"], row["valid_P@5"]) for row in curve] for curve in curves]
    assert figures[0] == figures[1] == figures[2]
    merits = [sum(pair) for pair in figures[0]]
    assert max(merits) > merits[-1]  # so that an earlier epoch is kept: its weights agree above

"""The loop: resumed equals unbroken; learning rates; errors."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load as torch_tensors
from safetensors.torch import save as torch_bytes

from mufin.errors import MufinError
from mufin.nn.weights import weights_of
from mufin.training import checkpoints
from mufin.training.checkpoints import save_checkpoint
from mufin.training.free_vectors import ridge_classifiers
from mufin.training.loop import train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers
from mufin.training.schedules import linear, one_cycle, rate_factor
from tests.support.bags import random_graph
from tests.support.training import (
    RATES,
    Killed,
    L,
    N,
    dense_finetuning,
    finetuning,
    half_finetuning,
    held_finetuning,
    killed_after,
    machine,
    pretraining,
)


@pytest.mark.parametrize(
    "make", [pretraining, finetuning, dense_finetuning, half_finetuning, held_finetuning]
)
@pytest.mark.parametrize("steps", [1, 7, 11])
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["checkpoint each step", "none before the end"])
def test_a_killed_run_resumes_to_an_unbroken_runs_bytes(make, steps, seconds, tmp_path):
    whole_job, whole = make(machine(tmp_path / "whole", seconds))
    curve = train(whole_job, whole, 5, 10, whole_machine := machine(tmp_path / "whole", seconds))
    job, optimisers = make(machine(tmp_path / "broken", seconds))
    with pytest.raises(Killed):
        train(killed_after(job, steps), optimisers, 5, 10, machine(tmp_path / "broken", seconds))
    job, optimisers = make(machine(tmp_path / "broken", seconds))
    if make is not pretraining and seconds == 0.0:  # the epochs already judged are not judged again
        for _ in range(steps // 5):
            job.validate(None)
    resumed = train(job, optimisers, 5, 10, machine(tmp_path / "broken", seconds))
    assert whole_machine.scratch.exists()
    ours, theirs = weights_of(optimisers.model), weights_of(whole.model)
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
    assert [r["loss"] for r in resumed] == [r["loss"] for r in curve]


def test_the_seed_decides_the_bytes(tmp_path):
    def run(seed, name):
        job, optimisers = pretraining(machine(tmp_path / name, 1e9))
        train(job, optimisers, seed, 10, machine(tmp_path / name, 1e9))
        return weights_of(optimisers.model)

    a, b, c = run(1, "a"), run(1, "b"), run(2, "c")
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a)


def test_a_finished_run_is_not_run_again(tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a"))
    curve = train(job, optimisers, 1, 10, machine(tmp_path / "a"))
    job, again = pretraining(machine(tmp_path / "a"))
    job.loss = None  # not one step is run
    assert [r["loss"] for r in train(job, again, 1, 10, machine(tmp_path / "a"))] == [
        r["loss"] for r in curve
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "softmax"},
        {"loss": "soft_triplet"},
        {"loss": "soft_triplet", "hard_negatives": False},
        {"negative_weights": "softmax"},
        {"batching": "datapoints"},
        {"batching": "clusters"},
        {"batching": "datapoint_clusters"},
        {"hard_negatives": False, "hard_positives": False},
    ],
)
def test_module_one_learns_under_every_batching_and_loss(changes, tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a", 1e9), 0.0, epochs=30, **changes)
    curve = train(job, optimisers, 1, 10, machine(tmp_path / "a", 1e9))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "softmax"},
        {"candidates": "all"},
        {"loss": "softmax", "candidates": "all"},
        {"positives_from": "shortlist"},
    ],
)
def test_module_four_learns_under_every_loss(changes, tmp_path):
    job, optimisers = finetuning(
        machine(tmp_path / "a", 1e9), 0.0, epochs=30, select="last", **changes
    )
    curve = train(job, optimisers, 1, 10, machine(tmp_path / "a", 1e9))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_select_valid_keeps_the_best_epochs_weights(tmp_path):
    job, optimisers = finetuning(machine(tmp_path / "a"))
    states, end = [], job.end_epoch
    job.end_epoch = lambda e: (states.append(weights_of(job.model)), end(e))[1]
    train(job, optimisers, 1, 10, machine(tmp_path / "a"))
    job.finish()
    assert all(
        torch.equal(t, states[1][n]) for n, t in weights_of(job.model).items()
    )  # 0.9, the second


def test_module_one_does_not_change_cross_attention(tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a", 1e9))
    before = {n: t.clone() for n, t in job.model.cross_attention.state_dict().items()}
    train(job, optimisers, 1, 10, machine(tmp_path / "a", 1e9))
    assert all(torch.equal(t, before[n]) for n, t in job.model.cross_attention.state_dict().items())


def test_a_step_changes_its_labels_eta_and_alpha_alone(tmp_path):
    job, optimisers = finetuning(machine(tmp_path / "a"))
    before = {n: t.clone() for n, t in job.model.classifiers.state_dict().items()}
    step = job.prepare(np.array([0, 1]), np.random.default_rng(0))
    job.loss(step).backward()
    optimisers.step(1.0)
    touched = torch.zeros(L, dtype=torch.bool)
    touched[step.labels] = True
    for name, table in job.model.classifiers.state_dict().items():
        changed = (table != before[name]).any(1)
        assert not (changed & ~touched).any() and changed[touched].any()


def test_dense_tables_follow_torchs_adamw_on_all_rows(tmp_path):
    job, optimisers = dense_finetuning(machine(tmp_path / "a"), 0.0)
    tables = {n: p for n, p in job.model.named_parameters() if n.startswith("classifiers.")}
    copies = {n: torch.nn.Parameter(p.detach().clone()) for n, p in tables.items()}
    plain = torch.optim.AdamW(copies.values(), lr=RATES.free, weight_decay=0.01)
    for anchors in ([0, 1], [2, 3], [4, 5]):
        step = job.prepare(np.array(anchors), np.random.default_rng(anchors[0]))
        job.loss(step).backward()
        for name, table in tables.items():
            assert not table.grad.is_sparse
            copies[name].grad = table.grad.clone()
        before = tables["classifiers.free.weight"].detach().clone()
        optimisers.step(1.0)
        plain.step()
        assert all(torch.allclose(p, copies[n], rtol=0, atol=1e-7) for n, p in tables.items())
    outside = torch.ones(L, dtype=torch.bool)
    outside[step.labels] = False
    assert (tables["classifiers.free.weight"] != before)[
        outside
    ].any()  # they go on by their moments


def test_tables_by_rows_have_sparse_gradients(tmp_path):
    """Also of a model that was trained with dense tables before."""
    job, _ = dense_finetuning(machine(tmp_path / "a"))
    Optimisers(job.model, RATES, 0.01, with_cross_attention=True)
    job.loss(job.prepare(np.array([0, 1]), np.random.default_rng(0))).backward()
    assert (
        job.model.classifiers.free.weight.grad.is_sparse
        and job.model.classifiers.mix.weight.grad.is_sparse
    )


@pytest.mark.parametrize(
    "make, changes, rows, table",
    [
        (pretraining, {}, "labels", "labels"),
        (pretraining, {"batching": "clusters"}, "labels", "labels"),
        (pretraining, {"batching": "datapoints", "batch_size": 15}, "datapoints", "train"),
        (finetuning, {}, "datapoints", "train"),
    ],
)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_loss_that_is_not_finite_names_its_products(
    make, changes, rows, table, precision, tmp_path
):
    where = machine(tmp_path / "a")
    where = Machine(where.device, precision, where.scratch, 1e9)
    job, optimisers = make(where, **changes)
    loss, count = job.loss, iter(range(100))
    job.loss = lambda s: loss(s) * (float("nan") if next(count) == job.steps + 1 else 1.0)
    with pytest.raises(MufinError) as error:
        train(job, optimisers, 1, 10, where)
    batch = job.plan(1)[1]
    named = ", ".join(map(str, batch[:8])) + ", ..." * (len(batch) > 8)
    assert (len(batch) > 8) == ("batch_size" in changes)
    assert str(error.value) == (
        f"the loss of {job.name} is nan at epoch 2, step 2 of {job.steps}, whose batch begins with "
        f"the {rows} {named} (rows of "
        f"{table}.parquet); look at these products, and lower {job.name}.lr"
        + " or set MUFIN_PRECISION=fp32"
        * (precision == torch.bfloat16)
    )


@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_the_curve_has_the_part_that_this_process_ran(make, tmp_path):
    job, optimisers = make(machine(tmp_path / "a"), select="last")
    assert [r["part"] for r in train(job, optimisers, 5, 10, machine(tmp_path / "whole"))] == [
        1.0
    ] * job.epochs
    job, optimisers = make(machine(tmp_path / "a"), select="last")
    with pytest.raises(Killed):
        train(killed_after(job, job.steps + 2), optimisers, 5, 10, machine(tmp_path / "a"))
    job, optimisers = make(machine(tmp_path / "a"), select="last")
    parts = [r["part"] for r in train(job, optimisers, 5, 10, machine(tmp_path / "a"))]
    assert parts == [0.0, pytest.approx(1 - 2 / job.steps)] + [1.0] * (job.epochs - 2)
    job, optimisers = make(machine(tmp_path / "a"), select="last")
    assert [r["part"] for r in train(job, optimisers, 5, 10, machine(tmp_path / "a"))] == [
        0.0
    ] * job.epochs


def test_on_epoch_is_given_the_curve_so_far(tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a"))
    seen = []
    curve = train(job, optimisers, 5, 10, machine(tmp_path / "a"), lambda c: seen.append(list(c)))
    assert seen == [curve[:n] for n in range(1, job.epochs + 1)]


def test_on_epoch_is_given_the_curve_before_the_kill(tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a"))
    with pytest.raises(Killed):
        train(killed_after(job, 2 * job.steps + 1), optimisers, 5, 10, machine(tmp_path / "a"))
    job, optimisers = pretraining(machine(tmp_path / "a"))
    seen = []
    curve = train(job, optimisers, 5, 10, machine(tmp_path / "a"), lambda c: seen.append(list(c)))
    assert seen == [curve[:n] for n in range(2, job.epochs + 1)]


@pytest.mark.parametrize(
    "make, changes, table",
    [
        (pretraining, {}, "labels"),
        (pretraining, {"batching": "clusters"}, "labels"),
        (pretraining, {"batching": "datapoints"}, "train"),
        (pretraining, {"batching": "datapoint_clusters"}, "train"),
        (finetuning, {}, "train"),
    ],
)
def test_a_job_names_the_table_of_its_anchors(make, changes, table, tmp_path):
    job, _ = make(machine(tmp_path / "a"), **changes)
    assert job.anchor_table() == table
    assert max(map(max, job.plan(0))) < {"labels": L, "train": N}[table]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    _, optimisers = pretraining(machine(tmp_path))
    save_checkpoint(path, optimisers, {}, {"epoch": 1})
    before = path.read_bytes()

    def full(tensors, part, metadata):
        part.write_bytes(b"half")
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        save_checkpoint(path, optimisers, {}, {"epoch": 2})
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def without_hash(content: bytes) -> bytes:
    """The same file of safetensors without its metadata."""
    return torch_bytes(torch_tensors(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"{}",
        lambda whole: b"broken",
        lambda whole: whole[:-100],
        lambda whole: whole[:-64] + bytes(byte ^ 1 for byte in whole[-64:]),
        without_hash,
    ],
    ids=["empty", "{}", "text", "cut off", "64 bytes flipped", "no hash"],
)
def test_a_damaged_checkpoint_says_what_to_do(tmp_path, damage):
    path = tmp_path / "checkpoint.safetensors"
    job, optimisers = pretraining(machine(tmp_path))
    save_checkpoint(path, optimisers, {"of the job": torch.ones(3, 3)}, {"epoch": 1})
    assert checkpoints.load_checkpoint(path, optimisers)[1] == {"epoch": 1}
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        MufinError,
        match=r"checkpoint.safetensors is damaged \(.*\); delete it; the stage then starts",
    ):
        train(job, optimisers, 1, 10, machine(tmp_path))


def test_a_step_of_module_one_knows_the_truth(tmp_path):
    job, _ = pretraining(machine(tmp_path / "a"))
    labels, by_label = np.array([3, 0, 7, 11]), random_graph(N, L).transpose(L)
    step = job.prepare(labels, np.random.default_rng(0))
    store_rows = step.batch.text.numpy()
    product = {row.tobytes(): p for p, row in enumerate(job.store.text.numpy())}
    encoded = [product[row.tobytes()] for row in store_rows]
    assert [encoded[i] for i in step.anchor] == labels.tolist()
    datapoints = [encoded[i] for i in step.other]
    assert step.relevant.tolist() == [
        [d in by_label[label] for d in datapoints] for label in labels
    ]
    for label, picks, there in zip(labels, step.positive, step.positive_mask):
        assert {datapoints[i] for i in picks[there]} <= set(by_label[label].tolist())


SCHEDULES = [(n, w) for n in (20, 21, 33, 100, 257, 1000) for w in (2, 3, n // 10, n // 3, n - 1)]


def rates_of(schedule_of, total: int) -> list[float]:
    """The rate at each of `total` steps under a scheduler of torch whose peak is 1."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = schedule_of(optimiser), []
    for step in range(total):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if step + 1 < total:
            schedule.step()
    return rates


@pytest.mark.parametrize("total, warmup", SCHEDULES)
def test_one_cycle_is_torchs_at_every_step(total, warmup):
    def torchs(optimiser):
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, 1.0, total_steps=total, pct_start=warmup / total, cycle_momentum=False
        )

    ours = [one_cycle(step, total, warmup) for step in range(total)]
    assert ours == pytest.approx(rates_of(torchs, total), abs=1e-12)


@pytest.mark.parametrize("total, warmup", [*SCHEDULES, (1, 0), (5, 0), (7, 1)])
def test_linear_is_that_of_transformers_at_every_step(total, warmup):
    def theirs(optimiser):
        return transformers.get_linear_schedule_with_warmup(optimiser, warmup, total)

    ours = [linear(step, total, warmup) for step in range(total)]
    assert ours == pytest.approx(rates_of(theirs, total), abs=1e-12)


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("total", [1, 2, 9])
def test_without_warm_up_one_cycle_starts_at_the_peak(total, warmup):
    rates = [one_cycle(step, total, warmup) for step in range(total)]
    assert rates[0] == 1.0 and rates == sorted(rates, reverse=True)
    assert total == 1 or rates[-1] == pytest.approx(1e-4 / 25)


@pytest.mark.parametrize("schedule", ["one_cycle", "linear"])
def test_warm_up_takes_at_most_a_tenth(schedule):
    rates = [rate_factor(schedule, step, 200, 1000) for step in range(200)]
    assert rates.index(max(rates)) == {"one_cycle": 19, "linear": 20}[schedule]


@pytest.mark.parametrize("schedule", ["one_cycle", "linear"])
@pytest.mark.parametrize("warmup", [3, "epoch"])
def test_a_run_follows_its_schedule(schedule, warmup, tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a", 1e9), epochs=20)
    factors, step = [], optimisers.step
    optimisers.step = lambda factor: (factors.append(factor), step(factor))[1]
    train(job, optimisers, 1, warmup, machine(tmp_path / "a", 1e9), schedule=schedule)
    total = job.steps * job.epochs
    batches = job.steps if warmup == "epoch" else warmup
    assert factors == [rate_factor(schedule, at, total, batches) for at in range(total)]


def test_ridge_free_vectors_are_ridge_regression():
    from sklearn.linear_model import Ridge

    graph, x = random_graph(N, L), np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    y = np.zeros((N, L))
    y[graph.rows(), graph.values] = 1
    theirs = Ridge(alpha=2.0, fit_intercept=False).fit(x, y - y.mean(0)).coef_
    assert np.allclose(ridge_classifiers(x, graph, L, 2.0), theirs, atol=1e-5)

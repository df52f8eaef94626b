"""The loop: resumed equals unbroken, several processes equal one, the learning-rate curve, what a loss that breaks says."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from mufin.errors import MufinError
from mufin.nn.classifiers import LabelClassifiers
from mufin.ragged import Lists
from mufin.training import checkpoints, distributed
from mufin.training.checkpoints import save_checkpoint
from mufin.training.finetuning import Finetuning
from mufin.training.free_vectors import ridge_classifiers
from mufin.training.loop import train
from mufin.training.machine import Machine
from mufin.training.optimisers import Optimisers, Rates, one_cycle, trained_state
from mufin.training.pretraining import Pretraining
from tests.support.bags import GivenStore, random_graph, tiny_mufin

N, L, WIDTH = 40, 24, 12
RATES = Rates(encoder=1e-2, new=1e-2, gates=1e-2, lexical=1e-2, attention=1e-2, free=1e-1)
PRETRAIN = dict(
    loss="triplet",
    gamma=0.2,
    temperature=0.1,
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
    gamma=0.2,
    temperature=0.1,
    positives=2,
    negatives=4,
    random_negatives=2,
    batch_size=8,
    epochs=4,
    select="valid",
)


class Killed(Exception):
    pass


def machine(folder: Path, seconds: float = 0.0) -> Machine:
    folder.mkdir(exist_ok=True)
    return Machine(torch.device("cpu"), torch.float32, folder, seconds)


def pretraining(where: Machine, dropout: float = 0.1, **changes):
    model = tiny_mufin(WIDTH, dropout=dropout)
    truth = random_graph(N, L)
    job = Pretraining(
        model,
        GivenStore(N, WIDTH),
        np.arange(N),
        np.arange(L),
        truth,
        Lists.of_rows([[]] * N),
        SimpleNamespace(**PRETRAIN | changes),
        3,
        where,
    )
    return job, Optimisers(model, RATES, 0.01, with_cross_attention=False)


def finetuning(where: Machine, dropout: float = 0.1, dense_tables: bool = False, **changes):
    model = tiny_mufin(WIDTH, dropout=dropout)
    torch.manual_seed(1)
    model.classifiers = LabelClassifiers(L, model.dim)
    truth, rng = random_graph(N, L), np.random.default_rng(0)
    shortlist = Lists.of_rows([rng.permutation(L)[:12] for _ in range(N)])
    calls = iter([0.3, 0.9, 0.5, 0.1, 0.1, 0.1])
    job = Finetuning(
        model,
        GivenStore(N, WIDTH),
        np.arange(N),
        np.arange(L),
        truth,
        Lists.of_rows([[]] * N),
        shortlist,
        SimpleNamespace(**FINETUNE | changes),
        3,
        lambda m: {"P@1": next(calls)},
    )
    return job, Optimisers(model, RATES, 0.01, with_cross_attention=True, dense_tables=dense_tables)


def dense_finetuning(where: Machine, dropout: float = 0.1, **changes):
    """Module IV with AdamW over all rows of eta and alpha."""
    return finetuning(where, dropout, True, **changes)


def killed_after(job, steps: int):
    """The job raises in the middle of step `steps`, as a kill would."""
    loss, count = job.loss, iter(range(10**6))

    def dies(prepared):
        if next(count) == steps:
            raise Killed
        return loss(prepared)

    job.loss = dies
    return job


@pytest.mark.parametrize("make", [pretraining, finetuning, dense_finetuning])
@pytest.mark.parametrize("steps", [1, 7, 11])
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["checkpoint each step", "none before the end"])
def test_a_killed_run_resumes_to_the_same_bytes_as_an_unbroken_one(make, steps, seconds, tmp_path):
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
    ours, theirs = trained_state(optimisers.model), trained_state(whole.model)
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
    assert [r["loss"] for r in resumed] == [r["loss"] for r in curve]


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    def run(seed, name):
        job, optimisers = pretraining(machine(tmp_path / name, 1e9))
        train(job, optimisers, seed, 10, machine(tmp_path / name, 1e9))
        return trained_state(optimisers.model)

    a, b, c = run(1, "a"), run(1, "b"), run(2, "c")
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a)


def test_the_last_checkpoint_of_a_finished_run_is_its_end(tmp_path):
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
        {"batching": "datapoints"},
        {"batching": "clusters"},
        {"hard_negatives": False, "hard_positives": False},
    ],
)
def test_module_one_learns_under_every_batching_and_loss(changes, tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a", 1e9), 0.0, epochs=30, **changes)
    curve = train(job, optimisers, 1, 10, machine(tmp_path / "a", 1e9))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


@pytest.mark.parametrize(
    "changes",
    [{}, {"loss": "softmax"}, {"candidates": "all"}, {"loss": "softmax", "candidates": "all"}],
)
def test_module_four_learns_under_every_loss_and_candidates(changes, tmp_path):
    job, optimisers = finetuning(
        machine(tmp_path / "a", 1e9), 0.0, epochs=30, select="last", **changes
    )
    curve = train(job, optimisers, 1, 10, machine(tmp_path / "a", 1e9))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_select_valid_keeps_the_weights_of_the_best_epoch(tmp_path):
    job, optimisers = finetuning(machine(tmp_path / "a"))
    states, end = [], job.end_epoch
    job.end_epoch = lambda e: (states.append(trained_state(job.model)), end(e))[1]
    train(job, optimisers, 1, 10, machine(tmp_path / "a"))
    job.finish()
    assert all(
        torch.equal(t, states[1][n]) for n, t in trained_state(job.model).items()
    )  # 0.9, the second


def test_module_one_leaves_cross_attention_alone(tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a", 1e9))
    before = {n: t.clone() for n, t in job.model.cross_attention.state_dict().items()}
    train(job, optimisers, 1, 10, machine(tmp_path / "a", 1e9))
    assert all(torch.equal(t, before[n]) for n, t in job.model.cross_attention.state_dict().items())


def test_a_finetune_step_changes_eta_and_alpha_of_its_batch_alone(tmp_path):
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


def test_dense_tables_are_updated_by_torchs_adamw_on_all_rows(tmp_path):
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


def test_tables_by_rows_keep_gradients_of_their_rows_alone(tmp_path):
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
def test_a_loss_that_is_not_finite_names_step_and_products_and_what_to_try(
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
        f"the loss of {job.name} is nan at epoch 2, step 2 of {job.steps}, whose batch begins with the {rows} {named} (rows of "
        f"{table}.parquet); look at these products, and lower {job.name}.lr"
        + " or set MUFIN_PRECISION=fp32"
        * (precision == torch.bfloat16)
    )


@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_the_curve_says_which_part_of_each_epoch_this_process_ran(make, tmp_path):
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


def test_a_checkpoint_that_the_disk_does_not_take_is_an_error_that_names_it_and_the_one_before_stays(
    tmp_path, monkeypatch
):
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


def test_a_broken_checkpoint_says_what_to_do(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"broken")
    job, optimisers = pretraining(machine(tmp_path))
    with pytest.raises(
        MufinError,
        match=r"checkpoint.safetensors cannot be read \(.*\); delete it, and the stage begins at",
    ):
        train(job, optimisers, 1, 10, machine(tmp_path))


def test_a_step_of_module_one_knows_the_truth_between_its_labels_and_datapoints(tmp_path):
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


@pytest.mark.parametrize("total, warmup", [(100, 10), (500, 37), (2000, 200)])
def test_one_cycle_is_torchs(total, warmup):
    p = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([p], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1.0, total_steps=total, pct_start=(warmup + 1) / total, cycle_momentum=False
    )
    for step in range(total):
        assert one_cycle(step, total, warmup) == pytest.approx(
            optimiser.param_groups[0]["lr"], abs=1e-6
        )
        optimiser.step()
        if step + 1 < total:
            schedule.step()


def test_warm_up_is_held_to_a_tenth_of_the_run():
    assert max(range(200), key=lambda s: one_cycle(s, 200, 1000)) == 20


def test_ridge_free_vectors_are_ridge_regression():
    from sklearn.linear_model import Ridge

    graph, x = random_graph(N, L), np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    y = np.zeros((N, L))
    y[graph.rows(), graph.values] = 1
    theirs = Ridge(alpha=2.0, fit_intercept=False).fit(x, y - y.mean(0)).coef_
    assert np.allclose(ridge_classifiers(x, graph, L, 2.0), theirs, atol=1e-5)


def test_shares_cover_everything_once(monkeypatch):
    for count in (0, 1, 5, 16):
        parts = []
        for r in range(3):
            monkeypatch.setattr(distributed, "world", lambda: 3)
            monkeypatch.setattr(distributed, "rank", lambda r=r: r)
            parts += list(range(count))[distributed.share(count)]
        assert parts == list(range(count))


SCRIPT = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from pipeline.training import distributed
from pipeline.training.loop import train
from pipeline.training.optimisers import trained_state
from tests.test_training import finetuning, machine, pretraining
torch.set_num_threads(1)
distributed.start(torch.device("cpu"))
out = Path(sys.argv[1])
for name, make in (("pretrain", pretraining), ("finetune", finetuning)):
    where = machine(out / name, 1e9)
    job, optimisers = make(where, 0.0, **({"select": "last"} if name == "finetune" else {}))
    train(job, optimisers, 5, 10, where)
    if distributed.rank() == 0:
        save_file(trained_state(optimisers.model), out / f"{name}.safetensors")
distributed.barrier()
"""


def test_two_processes_train_the_weights_of_one(tmp_path):
    from safetensors.torch import load_file

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for world in (1, 2):
        (tmp_path / str(world)).mkdir()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                f"--nproc-per-node={world}",
                "--standalone",
                str(script),
                str(tmp_path / str(world)),
            ],
            check=True,
            env=environment,
            timeout=240,
            capture_output=True,
        )
    for name in ("pretrain", "finetune"):
        one, two = (load_file(tmp_path / str(w) / f"{name}.safetensors") for w in (1, 2))
        for key in one:
            if key.endswith(
                "key.bias"
            ):  # its true gradient is 0 (softmax is blind to it); AdamW blows up the rounding
                continue
            assert torch.allclose(one[key], two[key], atol=2e-4), (
                name,
                key,
                (one[key] - two[key]).abs().max(),
            )

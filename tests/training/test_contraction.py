"""|mean z|^2: closed forms, the curve, a kill; the warning."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from mufin.training.contraction import COLUMN, ContractionWarning, squared_mean
from mufin.training.curves import CurveFile
from mufin.training.loop import train
from tests.support.training import Killed, finetuning, killed_after, machine, pretraining


def test_the_squared_mean_is_the_mean_cosine_of_pairs():
    z = torch.nn.functional.normalize(torch.randn(30, 8, dtype=torch.float64), dim=1)
    slow = np.mean([float(a @ b) for a in z for b in z])
    assert float(squared_mean(z)) == pytest.approx(slow)
    assert float(squared_mean(torch.cat([z, torch.zeros(9, 8)]))) == pytest.approx(slow)


@pytest.mark.parametrize(
    "z, expected",
    [
        (torch.eye(5), 1 / 5),
        (torch.eye(4)[[2, 2, 2]], 1.0),
        (torch.cat([torch.eye(3), -torch.eye(3)]), 0.0),
        (torch.zeros(4, 3), 0.0),
        (torch.zeros(0, 3), 0.0),
    ],
    ids=["orthogonal", "all alike", "opposite", "empty bags", "no rows"],
)
def test_the_squared_mean_in_closed_form(z, expected):
    assert float(squared_mean(z)) == pytest.approx(expected)


def test_the_curve_has_the_mean_over_the_steps(tmp_path):
    job, optimisers = pretraining(machine(tmp_path / "a", 1e9))
    loss, seen = job.loss, []

    def noted(step):
        with torch.no_grad():
            state = torch.get_rng_state()
            z = job.model.vector(job.model.bag(step.batch))
            torch.set_rng_state(state)
            seen.append(float(z.mean(0).square().sum()))
        return loss(step)

    job.loss = noted
    curve = train(job, optimisers, 5, 10, machine(tmp_path / "a", 1e9))
    expected = np.reshape(seen, (job.epochs, job.steps)).mean(1)
    assert [row[COLUMN] for row in curve] == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("kill", [1, 2, 4, 7])
def test_a_kill_within_an_epoch_does_not_change_the_column(kill, tmp_path):
    def run(folder, dies=None):
        job, optimisers = pretraining(machine(tmp_path / folder))
        if dies:
            with pytest.raises(Killed):
                train(killed_after(job, dies), optimisers, 5, 10, machine(tmp_path / folder))
            return None
        return train(job, optimisers, 5, 10, machine(tmp_path / folder))

    whole = run("whole")
    run("broken", kill)
    assert [r[COLUMN] for r in run("broken")] == [r[COLUMN] for r in whole]


def test_the_file_of_module_one_has_the_column_and_module_four_not(tmp_path):
    for make, columns in (
        (pretraining, ["epoch", "loss", COLUMN]),
        (finetuning, ["epoch", "loss", "valid_P@1"]),
    ):
        file = CurveFile(tmp_path / "curve.csv")
        job, optimisers = make(machine(tmp_path / make.__name__, 1e9))
        train(job, optimisers, 5, 10, machine(tmp_path / make.__name__, 1e9), file.member())
        with open(file.path, newline="") as lines:
            assert next(csv.reader(lines)) == columns


# The warning


def warned(capsys, values: list[float], loss: str = "triplet", **more) -> str:
    """What stderr gets while a curve of `values` grows."""
    warn = ContractionWarning(loss, more.pop("epochs", 9), **more)
    for epoch in range(1, len(values) + 1):
        warn([{COLUMN: value} for value in values[:epoch]])
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "values, epoch",
    [
        ([0.5, 0.7, 0.91, 0.99, 0.997], 3),
        ([0.95, 0.96, 0.5], 2),
        ([0.5, 0.95, 0.94, 0.94], 2),
        ([0.99, 0.99], 2),
    ],
)
def test_it_warns_once_and_names_epoch_and_remedy(values, epoch, capsys):
    said = warned(capsys, values)
    assert said.count("\n") == 1 and f"at epoch {epoch} " in said and len(said) <= 301
    assert "pretrain.loss: soft_triplet or softmax" in said
    assert "pretrain.hard_negatives: false" in said


@pytest.mark.parametrize("values", [[0.5, 0.9, 0.9], [0.99, 0.95, 0.91, 0.6], [0.97], []])
def test_a_spread_that_grows_is_no_reason_to_warn(values, capsys):
    assert warned(capsys, values) == ""


def test_the_last_epoch_is_judged_also_where_it_falls(capsys):
    assert "at epoch 1 " in warned(capsys, [0.97], epochs=1)
    assert "at epoch 3 " in warned(capsys, [0.99, 0.98, 0.97], epochs=3)


def test_the_remedy_of_other_losses_is_another(capsys):
    said = warned(capsys, [0.95, 0.96], "softmax")
    assert "lower pretrain.lr" in said and "soft_triplet" not in said


def test_only_the_first_process_warns(capsys):
    assert warned(capsys, [0.95, 0.96], prints=False) == ""


def test_members_share_one_warning(capsys):
    warn = ContractionWarning("triplet", 9)
    for _ in range(3):
        warn([{COLUMN: 0.95}, {COLUMN: 0.96}])
    assert capsys.readouterr().err.count("\n") == 1


def test_the_column_draws_no_random_numbers_and_has_no_gradient():
    z, state = torch.randn(4, 3, requires_grad=True), torch.get_rng_state()
    assert not squared_mean(z).requires_grad and torch.get_rng_state().equal(state)

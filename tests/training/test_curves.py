"""Curve files: they grow an epoch at a time; a resumed run leaves an unbroken run's file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mufin.training.curves import CurveFile
from mufin.training.loop import train
from tests.support.training import Killed, finetuning, killed_after, machine, pretraining

both_modules = pytest.mark.parametrize("make", [pretraining, finetuning])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(make, folder: Path, curve: CurveFile, kill_after: int | None = None) -> list[list[int]]:
    """Runs a job in `folder` from its last checkpoint; the epochs in the file after each write."""
    where = machine(folder)
    job, optimisers = make(where)
    job.validate = lambda model: {"P@1": 50.0}
    if kill_after is not None:
        killed_after(job, kill_after)
    seen, on_epoch = [], curve.member()

    def noted(rows) -> None:
        on_epoch(rows)
        seen.append([int(row["epoch"]) for row in rows_of(curve.path)])

    try:
        train(job, optimisers, 5, 10, where, noted)
    except Killed:
        assert kill_after is not None
    return seen


@both_modules
def test_the_curve_file_grows_an_epoch_at_a_time(make, tmp_path):
    seen = run(make, tmp_path / "run", CurveFile(tmp_path / "curve.csv"))
    assert seen == [list(range(1, n + 1)) for n in range(1, len(seen) + 1)]
    assert len(seen) == {pretraining: 5, finetuning: 4}[make]


@both_modules
@pytest.mark.parametrize("removed", [False, True], ids=["left there", "removed by dvc"])
@pytest.mark.parametrize("steps", [3, 7, 11])
def test_a_resumed_run_leaves_an_unbroken_runs_file(make, removed, steps, tmp_path):
    path = tmp_path / "curve.csv"
    run(make, tmp_path / "whole", CurveFile(path))
    unbroken = path.read_bytes()
    run(make, tmp_path / "broken", CurveFile(path), kill_after=steps)
    if removed:
        path.unlink(missing_ok=True)
    seen = run(make, tmp_path / "broken", CurveFile(path))
    assert path.read_bytes() == unbroken
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in seen)  # no row twice


def test_a_finished_run_writes_its_file_again(tmp_path):
    path = tmp_path / "curve.csv"
    run(pretraining, tmp_path / "run", CurveFile(path))
    unbroken = path.read_bytes()
    path.unlink()
    assert run(pretraining, tmp_path / "run", CurveFile(path)) == [[1, 2, 3, 4, 5]]
    assert path.read_bytes() == unbroken


def epoch(number: int, loss: float, part: float = 1.0, **valid: float) -> dict[str, float]:
    """A row of a curve as the training loop returns it."""
    return {
        "epoch": number,
        "loss": loss,
        "part": part,
        "seconds": 9.9,
        "steps_per_second": 1.1,
        **valid,
    }


def test_a_row_is_the_mean_of_finished_members(tmp_path):
    curve = CurveFile(tmp_path / "curve.csv")
    first, second = curve.member(), curve.member()
    first([epoch(1, 4.0, valid_P=10.0), epoch(2, 2.0, valid_P=20.0)])
    second([epoch(1, 2.0, valid_P=40.0)])
    assert curve.path.read_text().split() == ["epoch,loss,valid_P", "1,3.0,25.0", "2,2.0,20.0"]
    second([epoch(1, 2.0, valid_P=40.0), epoch(2, 1.0, valid_P=60.0)])
    assert curve.path.read_text().split() == ["epoch,loss,valid_P", "1,3.0,25.0", "2,1.5,40.0"]


def test_the_curve_knows_items_worked_through_and_last_loss(tmp_path):
    curve = CurveFile(tmp_path / "curve.csv")
    first, second = curve.member(), curve.member()
    first([epoch(1, 4.0, part=0.0), epoch(2, 2.0, part=0.25)])
    second([epoch(1, 3.0), epoch(2, 0.5)])
    assert curve.worked(200) == 450 and curve.last_loss() == 0.5


def test_a_process_that_does_not_write_leaves_no_file(tmp_path):
    curve = CurveFile(tmp_path / "curve.csv", writes=False)
    run_without_file = curve.member()
    run_without_file([epoch(1, 4.0)])
    assert not curve.path.exists() and curve.last_loss() == 4.0

"""The stage folds: cold, resumed after a kill, the same twice, and what evaluate makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mufin.artifacts.contents import check_made_from
from mufin.artifacts.curated import read_curated
from mufin.artifacts.files import read_json
from mufin.artifacts.out_of_fold import read_out_of_fold, write_out_of_fold
from mufin.errors import ArtifactError, MufinError
from mufin.params import load_params
from mufin.ranking.mix import Mix
from mufin.ranking.mix_choice import MERIT, Fold, parts_alone, pooled
from pipeline import folds
from tests.support.processes import in_processes
from tests.support.projects import ROOT, environment
from tests.support.stages import FINISHED, inside, run_stages, stage

CHOSEN = FINISHED | {
    "evaluate.mix": "cross_validated",
    "evaluate.folds": 3,
    "evaluate.betas": [0.5, 1.0],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """All stages, with a mix that folds choose."""
    folder = tmp_path_factory.mktemp("folds")
    with inside(folder, **CHOSEN):
        run_stages(folder)
    return folder


def started(source: Path, folder: Path) -> Path:
    """A folder with what the stage reads of `source`."""
    for name in ("data/curated", "data/precomputed"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(source / name)
    return folder


def test_every_train_datapoint_with_a_label_is_scored_once(home):
    data, found = read_curated(home / "data/curated"), read_out_of_fold(home / "data/folds")
    assert len(found) == 3
    rows = np.concatenate([fold.datapoints for fold in found])
    assert len(set(rows.tolist())) == len(rows) > 0.8 * len(data.train)
    check_made_from(home / "data/folds", "data/curated", home / "data/curated")


def test_no_candidate_or_truth_is_a_left_out_product(home):
    data = read_curated(home / "data/curated")
    number = folds.draw_folds(data.train.product, 3, load_params(home / "params.yaml").curate.seed)
    for n, fold in enumerate(read_out_of_fold(home / "data/folds")):
        held = set(data.train.product[number == n].tolist())
        assert set(data.train.product[fold.datapoints].tolist()) <= held
        rest = data.train.labels.take(np.flatnonzero(number != n))
        counts = np.bincount(rest.values, minlength=len(data.labels))
        for lists in (fold.candidates, fold.truth):
            assert not held & set(data.labels[lists.values].tolist())
        known = ~np.isin(data.labels, list(held))
        assert (fold.counts == counts * known).all()
        assert fold.scores.keys() == {"classifier", "similarity", "ridge", "votes"}
        for i, row in enumerate(fold.datapoints):
            truth = set(data.train.labels[row].tolist())
            assert set(fold.truth[i].tolist()) == {t for t in truth if fold.counts[t]}


def test_predictions_use_what_the_folds_choose(home):
    choices = read_json(home / "metrics/choices.json")["chosen"]
    assert choices["on"] == "folds"
    mixes = [Fold.of(scores) for scores in read_out_of_fold(home / "data/folds")]
    chosen = Mix(**{n: v for n, v in choices.items() if not n.startswith("on")})

    def merit(mix: Mix) -> float:
        figures = pooled(mixes, mix)
        return sum(float(figures[name].mean()) for name in MERIT)

    for mix in (Mix(0.7), *parts_alone(True, True).values()):
        assert merit(chosen) >= merit(mix) - 1e-9
    folder = home / "data/predictions"
    assert (folder / "test.parquet").read_bytes() == (
        folder / "methods/mufin_chosen.parquet"
    ).read_bytes()
    used = read_json(home / "models/mix.json")
    assert {name: used[name] for name in chosen.weights()} == chosen.weights()
    tried = choices["on_folds"]
    assert tried[0] | Mix(0.7).weights() == tried[0] and tried[0]["lead"] == 0
    told = read_json(home / "metrics/folds.json")
    assert told["chosen"]["P@1"] + told["chosen"]["P@5"] + told["chosen"]["R@10"] == pytest.approx(
        merit(chosen), abs=1e-3
    )


def test_another_mix_costs_nothing_and_leaves_an_empty_artifact(home, tmp_path, monkeypatch):
    monkeypatch.setattr(folds, "_run", None)  # would be called
    with inside(started(home, tmp_path), **FINISHED):
        folds.main(tmp_path)
    assert read_out_of_fold(tmp_path / "data/folds") == []
    assert not (tmp_path / "scratch/folds").exists()


def test_other_mixes_import_no_network():
    code = "import sys, pipeline.folds; print('torch' in sys.modules, 'sklearn' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


SCRIPT = """
import os, signal, sys
from pathlib import Path
from pipeline import finetune, folds
home, alone, main = Path(sys.argv[1]), "WORLD_SIZE" not in os.environ, finetune.main
def noted(fold):
    if alone and fold.name == "fold-1":
        os.kill(os.getpid(), signal.SIGKILL)
    (home / f"{fold.name} trains").touch(exist_ok=False)
    main(fold)
finetune.main = noted
folds.main(home)
"""


def test_a_killed_run_trains_the_other_folds_in_two_processes_to_the_same_bytes(home, tmp_path):
    """Killed at the start of Module IV of the second fold; the first is not trained again."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with inside(started(home, tmp_path), **CHOSEN):
        scratch = os.environ["MUFIN_SCRATCH"]
        alone = environment(PYTHONPATH=str(ROOT), MUFIN_SCRATCH=scratch)
        done = subprocess.run([sys.executable, script, tmp_path], env=alone, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
        assert not (tmp_path / "data/folds").exists()
        in_processes(2, script, tmp_path)
    assert len(list(tmp_path.glob("fold-? trains"))) == 3
    for name in ("scores", "counts"):
        again = (tmp_path / f"data/folds/{name}.parquet").read_bytes()
        assert again == (home / f"data/folds/{name}.parquet").read_bytes()
    assert not any((tmp_path / "scratch/folds").iterdir())
    costs = read_json(tmp_path / "metrics/runtime/folds.json")
    assert len(costs["seconds_per_fold"]) == 2  # of the folds that both have trained


def test_scores_on_the_disk_of_another_machine_are_one_sentence(home, tmp_path, monkeypatch):
    """The first of two processes has the folds 1 and 3; the other one says that it has fold 2."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for fold in (0, 2):
        (tmp_path / f"scores-{fold}").mkdir()
    of_other = np.array([[0, 5.0, 0], [0, 1, 0]])
    monkeypatch.setattr(folds, "_of_all", lambda found: found + of_other)
    with pytest.raises(MufinError, match="scores of fold 2, which .* MUFIN_SCRATCH to a folder"):
        folds._run(load_params(home / "params.yaml"), home, tmp_path)
    (tmp_path / "scores-1").mkdir()
    assert folds._run(load_params(home / "params.yaml"), home, tmp_path) == [5.0]


@pytest.mark.parametrize("mix, starts", [("cross_validated", [3]), ("fixed", [])])
def test_only_a_mix_of_folds_starts_processes(mix, starts, home, tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_PROCESSES", "3")
    counts = []
    monkeypatch.setattr(folds.processes, "launch", lambda count, workers: counts.append(count))
    with inside(started(home, tmp_path), **CHOSEN | {"evaluate.mix": mix}):
        folds.main(tmp_path)
    assert counts == starts
    assert (tmp_path / "data/folds").exists() == (not starts)


def test_other_settings_start_over(home, tmp_path):
    marks = set()
    for changes in (
        {},
        {"finetune.lr": 0.01},
        {"pretrain.lr": 0.01},
        {"index.title_ridge": 2.0},
        {"evaluate.folds": 4},
        {"seed": 1},
        {"curate.seed": 1},
        {"evaluate.candidates": "all"},
        {"retrieve.vectors": "vec"},
    ):
        with inside(started(home, tmp_path / f"{len(marks)}"), **CHOSEN | changes) as folder:
            scratch = folds._scratch(load_params(folder / "params.yaml"), folder)
            marks.add(scratch.name)
    assert len(marks) == 9
    for changes in ({"members": 5}, {"evaluate.betas": [0.1]}, {"finetune.select": "valid"}):
        with inside(started(home, tmp_path / f"more {changes}"), **CHOSEN | changes) as folder:
            scratch = folds._scratch(load_params(folder / "params.yaml"), folder)
        assert scratch.name in marks


def test_a_fold_has_the_settings_of_the_run_but_one_member(home, tmp_path):
    params = load_params(home / "params.yaml")
    of_fold = folds._of_fold(params)
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(asdict(of_fold)))
    assert load_params(path) == of_fold
    assert of_fold.members == 1 and of_fold.pretrain == params.pretrain


def test_a_tiny_catalog_has_as_many_folds_as_it_can(tmp_path, capsys):
    """Each of a few products is left out alone; folds in which nothing remains are left out."""
    changes = {"download.sample.products": 60, "curate.test": 0.9, "curate.valid": 0.0}
    with inside(tmp_path, **CHOSEN | changes | {"evaluate.folds": 50}):
        run_stages(tmp_path, "download", "precompute")
        stage("folds").main(tmp_path)
    data = read_curated(tmp_path / "data/curated")
    found = read_out_of_fold(tmp_path / "data/folds")
    assert len(found) <= len(data.train) < 50
    assert "no relation remains" in capsys.readouterr().err or len(found) == len(data.train)


def test_folds_of_other_data_are_refused(home, tmp_path):
    folder = started(home, tmp_path)
    for name in ("data/embeddings", "models/pretrain", "models/finetune", "models/index"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(home / name)
    with inside(folder, **CHOSEN):
        write_out_of_fold([], folder / "data/folds", {"data/curated": "0" * 64})
        with pytest.raises(ArtifactError, match="are of different runs"):
            stage("evaluate").main(folder)


def test_warm_folds_without_a_ridge_choose_too(tmp_path):
    """Also where an epoch is chosen on valid, which a fold does not have."""
    changes = {
        "members": 1,
        "curate.split": "warm",
        "finetune.select": "valid",
        "index.title_ridge": 0.0,
        "evaluate.ridge_weights": [0.0],
        "evaluate.candidates": "all",
        "evaluate.folds": 2,
    }
    with inside(tmp_path, **CHOSEN | changes):
        run_stages(tmp_path)
    data, found = read_curated(tmp_path / "data/curated"), read_out_of_fold(tmp_path / "data/folds")
    assert sum(map(len, found)) > 0.5 * len(data.train)
    for fold in found:
        asked = set(data.train.product[fold.datapoints].tolist())
        assert asked & set(data.labels[fold.candidates.values].tolist())  # they may be labels
        rest = np.setdiff1d(np.arange(len(data.train)), fold.datapoints)
        for i, row in enumerate(fold.datapoints):
            own = np.flatnonzero(data.labels == data.train.product[row])
            back = [q for q in rest if np.isin(own, data.train.labels[q]).any()]
            reverse = np.flatnonzero(np.isin(data.labels, data.train.product[back]))
            known = set(reverse[fold.counts[reverse] > 0].tolist())
            assert known <= set(fold.excluded[i].tolist())
            assert not known & set(fold.candidates[i].tolist())
    told = read_json(tmp_path / "metrics/folds.json")
    assert "ridge" not in told and told["chosen"]["P@1"] > 0
    assert read_json(tmp_path / "models/mix.json")["ridge_weight"] == 0

"""The comparison: a variant differs from MUFIN in its line alone, a change reruns that row alone, a crash costs one row."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from compare.baseline import FUNCTIONS
from compare.rows import LEARNT, OF_MUFIN, PLAIN, ROWS, read_wanted, results
from compare.table import LEAST, METRICS, best, notes
from compare.variant import MADE, TOUCHES, changed, touches
from mufin.errors import MufinError
from mufin.params import load_params
from tests.support.projects import ROOT, environment, run
from tests.test_structure import closure

PIPELINE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
COMPARE = YAML(typ="safe").load((ROOT / "compare/dvc.yaml").read_text())["stages"]
PROFILES = {"sample": "compare/variants.yaml"} | {
    p.stem: f"params/variants/{p.name}" for p in sorted((ROOT / "params/variants").glob("*.yaml"))
}
RIVALS, FIRST = ("bonsai", "xt"), ("ridge", "popular")  # the others have tests of their own
WANTED = {  # the settings of the paper's ablations, by the names that they have here
    "no_hard_positives": {"pretrain.hard_positives"},
    "no_hard_negatives": {"pretrain.hard_positives", "pretrain.hard_negatives"},
    "concat": {"transfer.a_c"},
    "no_a_s": {"attention.a_s"},
    "no_a_c": {"transfer.a_c"},
    "alpha_1": {"transfer.alpha"},
    "text_only": {"encoder.modalities"},
    "image_only": {"encoder.modalities"},
    "datapoint_batches": {"pretrain.batching"},
    "cluster_batches": {"pretrain.batching"},
}


def flat(content: dict, prefix: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for name, value in content.items():
        nested = isinstance(value, dict) and name not in ("options", "hnsw", "propensity")
        out |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return out


def settings_of(text: str) -> dict[str, object]:
    return flat(YAML(typ="safe", pure=True).load(text))


@pytest.mark.parametrize("profile", PROFILES)
def test_each_variant_differs_from_its_reference_in_the_named_settings_alone_and_is_valid(
    profile, tmp_path
):
    params, wanted = ROOT / f"params/{profile}.yaml", read_wanted(ROOT / PROFILES[profile])
    texts = {name: changed(params, settings) for name, settings in wanted.variants.items()}
    for name, text in texts.items():
        (tmp_path / "params.yaml").write_text(text)
        load_params(tmp_path / "params.yaml")
        reference = (
            "triplet"
            if name in ("no_hard_positives", "no_hard_negatives") and "triplet" in texts
            else "mufin"
        )
        before, after = settings_of(texts[reference]), settings_of(text)
        differs = {n for n in before if before[n] != after[n]}
        assert set(before) == set(after)
        if name == "image_only":
            differs -= {
                "index.title_ridge",
                "evaluate.ridge_weights",
            }  # which read titles, where a profile has them
        if name in WANTED:
            assert differs == WANTED[name], name
        elif name == "visualbert":
            assert {"encoder.text.kind", "attention.a_s"} <= differs and differs - {
                "attention.a_s",
                "encoder.modalities",
            } == {n for n in differs if n.startswith(("encoder.image.", "encoder.text."))}
        elif name not in ("mufin", "triplet"):
            assert differs and all(
                n.startswith(("encoder.image.", "encoder.text.")) for n in differs
            ), name
    assert settings_of(texts["mufin"]) == settings_of(params.read_text())


def test_a_variant_reruns_from_the_first_stage_that_reads_one_of_its_settings():
    declared = {stage: PIPELINE[stage]["params"] for stage in MADE}
    for name in settings_of((ROOT / "params.yaml").read_text()):
        if name.startswith(("download", "curate", "seed", "members")):
            continue
        readers = [s for s in MADE if any(f"{name}.".startswith(f"{d}.") for d in declared[s])]
        first = min(readers, key=list(MADE).index)
        longest = max((n for n in TOUCHES if f"{name}.".startswith(f"{n}.")), key=len)
        assert list(MADE).index(TOUCHES[longest]) == list(MADE).index(first), name
    assert touches({}) == "transfer" and touches({"evaluate.beta": 0.5}) == "transfer"
    assert touches({"finetune.gamma": 0.1, "attention.heads": 2}) == "pretrain"


@pytest.mark.parametrize(
    "settings", [{"curate.split": "warm"}, {"download.max_images": 3}, {"gama": 1}]
)
def test_settings_that_variants_share_are_refused(settings):
    with pytest.raises(MufinError, match=next(iter(settings)).partition(".")[0]):
        touches(settings)


def test_a_setting_that_is_none_is_refused_by_name():
    with pytest.raises(MufinError, match="finetune.gama is not a setting"):
        changed(ROOT / "params.yaml", {"finetune.gama": 1})


FORM = {"seeds": [0], "variants": {"mufin": {}}, "rivals": [], "first_tries": []}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"seeds": []}, "seeds is"),
        ({"seeds": [-1]}, "seeds is"),
        ({"seeds": 3}, "seeds is"),
        ({"variants": {}}, "`mufin` among them"),
        ({"variants": {"mufin": 3}}, "the settings of each"),
        ({"rivals": ["bonsay"]}, "rivals is"),
        ({"first_tries": ["bonsai"]}, "first_tries is"),
        ({"more": 1}, "nothing else"),
    ],
    ids=str,
)
def test_a_broken_file_of_variants_is_one_sentence(tmp_path, change, said):
    (tmp_path / "variants.yaml").write_text(json.dumps(FORM))
    read_wanted(tmp_path / "variants.yaml")
    (tmp_path / "variants.yaml").write_text(json.dumps(FORM | change))
    with pytest.raises(MufinError, match=said):
        read_wanted(tmp_path / "variants.yaml")


def test_the_pipeline_of_the_comparison_names_every_row_and_every_file_that_a_row_imports():
    wanted = read_wanted(ROOT / "compare/variants.yaml")
    assert (
        wanted.rows == list(ROWS)
        and wanted.rivals == list(LEARNT)
        and wanted.first_tries == list(PLAIN)
    )
    assert set(FUNCTIONS) == {*LEARNT, *PLAIN} and set(ROWS) == {
        *wanted.variants,
        *OF_MUFIN,
        *LEARNT,
        *PLAIN,
    }
    stages = {
        s: closure(ROOT / f"pipeline/{s}.py")
        for s in (*MADE, "variant", "rival", "compare", "report")
    }

    def files(stage):
        return {d for d in COMPARE[stage]["deps"] if d.endswith(".py")}

    assert files("base") == stages["variant"].union(
        *(stages[s] for s in ("precompute", "pretrain", "retrieve"))
    )
    assert files("variant") == stages["variant"].union(*(stages[s] for s in MADE))
    assert files("table") == stages["compare"] and files("report") == stages["report"]
    for stage, names in (("rival", LEARNT), ("first_try", PLAIN)):
        for name in names:
            mine = {d.replace("${item.name}", name) for d in files(stage)}
            assert (
                closure(ROOT / f"pipeline/baselines/{FUNCTIONS[name][0]}.py") | stages["rival"]
                <= mine
            ), name


def row(name: str, **figures: float) -> dict:
    """A row of the table with every figure 1 but those given."""
    return {
        "row": name,
        "title": name,
        "group": "MUFIN",
        "seeds": [0],
        "failed": None,
        "metrics": {m: [figures.get(m, 1.0), 0.0] for m in (*METRICS, *LEAST)},
    }


@pytest.mark.parametrize(
    "figures, said",
    [
        ({"P@1": 1.5, "tail R@10": 1.2}, "P@1 +0.50 (no loss), tail R@10 +0.20 (won)"),
        ({"P@1": 0.5, "tail R@10": 1.2}, "P@1 -0.50 (LOST), tail R@10 +0.20 (won)"),
        ({"P@1": 1.0, "tail R@10": 1.0}, "P@1 +0.00 (no loss), tail R@10 +0.00 (NOT WON)"),
    ],
)
def test_the_table_says_whether_scoring_rare_labels_differently_paid(figures, said):
    assert said in notes([row("mufin"), row("mufin_rare_and_popular", **figures)])[0]
    assert (
        said
        in notes(
            [
                row("mufin", **{"P@1": 9.0}),
                row("mufin_fixed"),
                row("mufin_rare_and_popular", **figures),
            ]
        )[0]
    )
    assert notes([row("mufin")]) == []


def test_the_best_of_each_column_is_the_highest_mean_and_of_milliseconds_the_lowest():
    rows = [
        row("mufin", **{"P@1": 2.0, "milliseconds": 3.0}),
        row("bonsai", milliseconds=0.5),
        row("xt") | {"metrics": {}, "failed": "gone"},
    ]
    assert best(rows)["P@1"] == 2.0 and best(rows)["milliseconds"] == 0.5 and best(rows[2:]) == {}


@pytest.fixture(scope="module")
def compared(project, tmp_path_factory) -> Path:
    """The small project with few variants and rivals, compared at two seeds."""
    folder = tmp_path_factory.mktemp("compared") / "project"
    shutil.copytree(project, folder, symlinks=True)
    shutil.copytree(ROOT / "compare", folder / "compare", ignore=shutil.ignore_patterns("dvc.lock"))
    narrow(folder, "no_a_c: {transfer.a_c: none}", [0, 1])
    # a library that crashes as napkinXC may: the row is lost, the run is not
    crash = folder / "crash/napkinxc"
    crash.mkdir(parents=True)
    (crash / "__init__.py").write_text("")
    (crash / "models.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "a comparison")
    done = run(folder, "dvc", "repro", "compare/dvc.yaml", PYTHONPATH=str(folder / "crash"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "told.txt").write_text(done.stdout)
    return folder


def narrow(folder: Path, line: str, seeds: list[int]) -> None:
    """variants.yaml with MUFIN, one more variant, some rivals and all first tries."""
    content = {
        "seeds": seeds,
        "variants": {"mufin": {}} | YAML(typ="safe").load(line),
        "rivals": list(RIVALS),
        "first_tries": list(FIRST),
    }
    (folder / "compare/variants.yaml").write_text(json.dumps(content))


def report(folder: Path) -> dict[str, dict]:
    return {
        row["row"]: row for row in json.loads((folder / "metrics/compare.json").read_text())["rows"]
    }


def test_the_table_has_every_row_with_mean_and_spread_of_what_the_predictions_give(compared):
    rows = report(compared)
    assert set(rows) == {"mufin", "no_a_c", *OF_MUFIN, *RIVALS, *FIRST} - {
        "mufin_chosen"
    }  # which is `mufin` here
    test = pq.read_table(compared / "data/curated/test.parquet")
    truth = [
        set(t) - set(e) for t, e in zip(test["labels"].to_pylist(), test["excluded"].to_pylist())
    ]
    for name in ("mufin", "no_a_c", "bonsai"):
        figures = []
        for seed in (0, 1):
            predicted = pq.read_table(compared / f"data/compare/{name}@{seed}/test.parquet")[
                "labels"
            ].to_pylist()
            figures.append(
                100 * np.mean([len(set(p[:5]) & t) / 5 for p, t in zip(predicted, truth)])
            )
        assert rows[name]["metrics"]["P@5"] == pytest.approx(
            [np.mean(figures), statistics.stdev(figures)], abs=2e-3
        )
    best = max(r["metrics"]["P@5"][0] for r in rows.values() if r["metrics"])
    told = (compared / "told.txt").read_text()
    assert f"**{best:.2f}" in told and all(r["title"] in told for r in rows.values())


def test_mufin_of_the_comparison_is_mufin_of_the_pipeline(compared):
    ours = json.loads((compared / "metrics/evaluate.json").read_text())["test"]
    facts = pq.read_table(compared / "data/compare/mufin@0/test.parquet")
    assert facts.equals(pq.read_table(compared / "data/predictions/test.parquet"))
    assert ours["mufin"]["P@5"] >= 0


def test_a_rival_that_crashes_costs_its_row_and_says_so(compared):
    row = report(compared)["xt"]
    assert not row["metrics"] and "SIGSEGV" in row["failed"]
    assert "SIGSEGV" in (compared / "told.txt").read_text()


def test_every_other_rival_beats_popularity(compared):
    rows = report(compared)
    for name in {*RIVALS, *FIRST} - {"xt", "popular"}:
        assert rows[name]["metrics"]["P@5"][0] > rows["popular"]["metrics"]["P@5"][0], name


def test_a_second_run_is_a_no_op_and_a_changed_line_reruns_that_variant_alone(compared):
    done = run(compared, "dvc", "repro", "compare/dvc.yaml")
    assert done.returncode == 0 and "Running stage" not in done.stdout, done.stdout
    narrow(compared, "no_a_c: {transfer.a_c: none, finetune.gamma: 0.4}", [0, 1])
    done = run(compared, "dvc", "repro", "compare/dvc.yaml")
    assert done.returncode == 0, done.stderr[-2000:]
    ran = {
        line.split("'")[1].rpartition(":")[2]
        for line in done.stdout.splitlines()
        if line.startswith("Running stage")
    }
    assert ran == {"variant@no_a_c-0", "variant@no_a_c-1", "table", "report"}


def test_an_incomplete_comparison_says_what_to_run(compared, tmp_path):
    shutil.copytree(compared / "data/compare", tmp_path / "compare")
    shutil.rmtree(tmp_path / "compare/bonsai@1")
    with pytest.raises(MufinError, match="bonsai@1/facts.json is missing"):
        results(tmp_path / "compare", read_wanted(compared / "compare/variants.yaml"))


def test_a_variant_whose_stage_fails_costs_its_row(compared, tmp_path):
    folder = copied(compared, tmp_path)
    (folder / "pipeline/evaluate.py").write_text(
        "from pipeline.errors import MufinError\ndef main(): raise MufinError('gone')"
    )
    done = run(folder, "python", "-m", "pipeline.variant", "no_a_c", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "data/compare/no_a_c@1/facts.json").read_text())["failed"] == "gone"
    done = run(
        folder, "python", "-m", "pipeline.variant", "mufin", "1"
    )  # nothing can be compared without it
    assert done.returncode == 1 and "error: gone" in done.stderr and "Traceback" not in done.stderr


def test_a_variant_killed_between_two_stages_goes_on_to_the_same_predictions(compared, tmp_path):
    folder = copied(compared, tmp_path)
    target, scratch = folder / "data/compare/no_a_c@1/test.parquet", folder / "scratch/variant"
    before = target.read_bytes()
    shutil.rmtree(target.parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.variant", "no_a_c", "1"],
        cwd=folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while not list(
        scratch.glob("*/metrics/finetune.json")
    ):  # which is written just before the model is
        assert process.poll() is None and time.monotonic() < end, (
            "finished before it could be killed"
        )
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finetuned = next(scratch.glob("*/metrics/finetune.json")).stat().st_mtime_ns
    assert not target.exists() and finetuned
    assert run(folder, "python", "-m", "pipeline.variant", "no_a_c", "1").returncode == 0
    assert target.read_bytes() == before
    assert not list(scratch.iterdir())


def copied(compared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(compared, folder, symlinks=True, ignore=shutil.ignore_patterns(".dvc", ".git"))
    return folder

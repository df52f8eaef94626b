"""All stages one after the other, in this process: settings, metrics, another home folder."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from mufin.artifacts.files import read_json
from mufin.artifacts.precomputed import Precomputed
from mufin.nn.embedding import Embedded
from mufin.params import Params, load_params
from mufin.training import table_updates
from pipeline import evaluate, finetune
from tests.support.projects import ROOT, environment
from tests.support.stages import FINISHED, QUICK, STAGES, inside, run_stages, stage

SUMMARY = {
    "test": {"P@1", "P@5", "PSP@5", "R@10", "R@100", "AUC@100"},
    "valid": {"P@1", "P@5", "R@10"},
}
TOWER = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "projection_dim": 24,
}
DECLARED = {
    name: [param for param in declared["params"] if isinstance(param, str)]
    for name, declared in YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].items()
}


def leaves(kind: type, prefix: str = "") -> Iterator[tuple[type, str, str]]:
    """(dataclass, field, dotted name) of every single setting."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, f"{prefix}{name}.")
        else:
            yield kind, name, prefix + name


def recorded(monkeypatch) -> set[str]:
    """A set that gathers the settings which a stage reads after it has loaded (and checked) all."""
    reads: set[str] = set()
    names: dict[type, dict[str, str]] = {}
    for kind, field, dotted in leaves(Params):
        if kind.__name__ != "Hnsw":  # is in two sections
            names.setdefault(kind, {})[field] = dotted
    for kind, fields in names.items():

        def get(self, name, fields=fields):
            if name in fields:
                reads.add(fields[name])
            return object.__getattribute__(self, name)

        monkeypatch.setattr(kind, "__getattribute__", get)

    def load(*args):
        loaded = load_params(*args)
        reads.clear()
        return loaded

    for name in STAGES:
        monkeypatch.setattr(stage(name), "load_params", load)
    return reads


def methods(home: Path) -> dict[tuple[str, str], dict[str, float]]:
    """{(method, split): {metric: value}} of metrics/methods.csv."""
    with open(home / "metrics/methods.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = {
        (row.pop("method"), row.pop("split")): {n: float(v) for n, v in row.items()} for row in rows
    }
    assert len(table) == len(rows)
    return table


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder.modalities": ["text"]},
        {"encoder.modalities": ["image"]},
        {"encoder.modalities": ["lexical"]},
        {
            "curate.split": "warm",
            "finetune.select": "valid",
            "retrieve.vectors": "vec",
            "encoder.projection": "maxpool",
        },
        {
            "pretrain.loss": "triplet",
            "pretrain.batching": "clusters",
            "transfer.free_vectors": "ridge",
            "attention.heads": 2,
        },
        {
            "pretrain.batching": "datapoints",
            "finetune.loss": "softmax",
            "finetune.candidates": "all",
            "evaluate.candidates": "all",
            "transfer.free_vectors": "centroid",
            "attention.gates": True,
        },
        {
            "retrieve.search": "hnsw",
            "index.search": "hnsw",
            "finetune.candidates": "all",
            "curate.max_products": 120,
        },
        {
            "finetune.loss": "softmax",
            "finetune.random_negatives": 8,
            "transfer.normalise_classifier": False,
            "seed": 3,
        },
        {"transfer.alpha": 1.0, "curate.split": "warm"},
        {
            "encoder.image.kind": "clip",
            "encoder.image.options": TOWER | {"patch_size": 16},
            "encoder.text.kind": "clip",
            "encoder.text.options": TOWER,
        },
        {
            "encoder.modalities": ["text", "image"],
            "encoder.text.kind": "visualbert",
            "attention.a_s": "none",
            "encoder.image.name": "resnet10t",
            "encoder.image.options": {},
            "finetune.train_encoders": False,
        },
        {"encoder.fusion": "early", "encoder.modalities": ["text", "image"]},
        {
            "encoder.fusion": "both",
            "encoder.text.trainable_layers": 1,
            "finetune.train_encoders": False,
            "members": 2,
        },
        {
            "encoder.modalities": ["image", "lexical"],
            "encoder.image.name": "test_resnet",
            "encoder.image.options": {},
            "encoder.image.self_supervised_epochs": 1,
            "attention.pool": "means",
            "pretrain.lexical_weight_decay": 1.0,
            "transfer.classifier": "directed",
            "finetune.lexical_weight_decay": 1.0,
        },
        {  # a ViT whose last block trains on after its start
            "encoder.image.self_supervised_epochs": 1,
            "encoder.image.trainable_blocks": 1,
            "transfer.classifier": "directed",
            "transfer.a_c": "none",
            "finetune.train_encoders": True,
        },
        {
            "transfer.a_c": "none",
            "finetune.loss": "softmax",
            "finetune.candidates": "all",
            "finetune.free_update": "auto",
            "finetune.free_precision": "bf16",
            "finetune.train_labels": False,
        },
    ],
    ids=lambda changes: ", ".join(f"{k}={v}" for k, v in changes.items()),
)
def test_stages_read_only_declared_settings_and_predictions_are_full(
    tmp_path, monkeypatch, changes
):
    reads = recorded(monkeypatch)
    with inside(tmp_path, **QUICK | changes):
        for name in STAGES:
            reads.clear()
            stage(name).main(tmp_path)
            undeclared = {
                read
                for read in reads
                if not any(f"{read}.".startswith(f"{param}.") for param in DECLARED[name])
            }
            assert reads and not undeclared, name
    labels = pq.read_table(tmp_path / "data/curated/labels.parquet")["product"].to_numpy()
    there = described(tmp_path)
    labels = int(there[labels].sum())  # the others are never answers
    test = pq.read_table(tmp_path / "data/curated/test.parquet").to_pylist()
    rows = pq.read_table(tmp_path / "data/predictions/test.parquet")["labels"].to_pylist()
    for asked, row in zip(test, rows, strict=True):
        most = min(100, labels - len(asked["excluded"])) if there[asked["product"]] else 0
        assert len(set(row)) == len(row) >= most and (most or not row)
        assert not set(row) & set(asked["excluded"])
    table = methods(tmp_path)
    several = len(changes.get("encoder.modalities", "both")) > 1
    assert (("image_only", "test") in table) == several
    assert all(figures["R@100"] > 0 for figures in table.values())


def test_products_without_any_descriptor_have_empty_bags():
    nothing = Embedded(
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int8),
        np.zeros(4, np.int64),
        np.zeros((3, 4), np.float32),
    )
    bags = nothing.bags(np.arange(3), "cpu")
    assert bags.rows.shape == (3, 1, 4) and not bags.mask.any() and not bags.rows.any()


# Metrics


@pytest.fixture(scope="module")
def again(tmp_path_factory) -> Path:
    """A second run with the settings of `finished`, in a folder of its own."""
    home = tmp_path_factory.mktemp("again")
    with inside(home, **FINISHED):
        run_stages(home)
    return home


def test_two_runs_give_equal_metrics_models_and_predictions(finished, again):
    """With one thread; what may differ is in metrics/runtime alone."""
    first, second = (
        {
            str(path.relative_to(home)): path.read_bytes()
            for part in ("metrics", "models", "data")
            for path in sorted((home / part).rglob("*"))
            if path.is_file() and "runtime" not in path.parts
        }
        for home in (finished, again)
    )
    assert first.keys() == second.keys()
    assert {f"metrics/{name}.json" for name in (*STAGES, "choices")} < first.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_evaluate_json_holds_few_numbers_per_split(finished):
    report = read_json(finished / "metrics/evaluate.json")
    assert list(report) == ["test", "valid"]
    for split, figures in report.items():
        assert set(figures) == SUMMARY[split]
        assert all(type(value) is float and 0 <= value <= 100 for value in figures.values())


def test_fitb_json_is_empty_without_outfits(finished):
    assert read_json(finished / "metrics/fitb.json") == {}


def test_methods_csv_has_each_method_and_split(finished):
    table = methods(finished)
    names = {path.stem for path in (finished / "data/predictions/methods").iterdir()}
    assert names == {
        "mufin",
        "mufin_chosen",
        "mufin_without_ridge",
        "mufin_without_votes",
        "mufin_rare_and_popular",
        "alpha_1",
        "text_only",
        "image_only",
        "module_1_bag",
        "module_1_vec",
        "popular",
        "tfidf_datapoints",
        "ridge",
    }
    assert set(table) == {(name, split) for name in names for split in ("test", "valid")}
    metrics = {f"{m}@{k}" for m in ("P", "nDCG", "PSP", "PSnDCG") for k in (1, 3, 5)}
    metrics |= {"R@10", "R@20", "R@50", "R@100", "AUC@100", "tail R@10"}
    for figures in table.values():
        assert set(figures) == metrics and all(0 <= value <= 100 for value in figures.values())


@pytest.mark.parametrize("mix, method", [("chosen", "mufin_chosen"), ("fixed", "mufin")])
def test_evaluate_json_is_of_the_method_that_predicts(finished, tmp_path, mix, method):
    """Also of the predictions, and the mix that they were made with."""
    home = tmp_path / "home"
    linked(finished, home)
    with inside(home, **FINISHED | {"evaluate.mix": mix}):
        evaluate.evaluate(home)
    report, table = read_json(home / "metrics/evaluate.json"), methods(home)
    for split in ("test", "valid"):
        assert report[split] == {name: table[method, split][name] for name in report[split]}
    folder = home / "data/predictions"
    assert (folder / "test.parquet").read_bytes() == (
        folder / f"methods/{method}.parquet"
    ).read_bytes()
    weights = read_json(home / "models/mix.json")
    chosen = read_json(home / "metrics/choices.json")["chosen"]
    fixed = {"beta": load_params(home / "params.yaml").evaluate.beta}
    fixed |= {"frequency_weight": 0.0, "ridge_weight": 0.0}
    weights = {name: weights[name] for name in fixed}
    assert weights == ({name: chosen[name] for name in fixed} if mix == "chosen" else fixed)


def linked(source: Path, home: Path) -> None:
    """A folder with links to what the stages before evaluate left in `source`."""
    for name in (
        "data/raw",
        "data/curated",
        "data/precomputed",
        "data/embeddings",
        "models/finetune",
        "models/index",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(source / name)


def test_choices_json_holds_the_sweep_and_what_was_learnt(finished):
    choices = read_json(finished / "metrics/choices.json")
    assert set(choices) == {"chosen", "popularity_mix", "unseen"}
    sweep, e = choices["chosen"]["on_valid"], load_params(finished / "params.yaml").evaluate
    names = ("beta", "frequency_weight", "ridge_weight", "vote_weight")
    weights = [tuple(row[name] for name in names) for row in sweep]
    assert weights == [
        (beta, frequency, ridge, votes)
        for beta in e.betas
        for frequency in e.frequency_weights
        for ridge in e.ridge_weights
        for votes in e.vote_weights
    ]
    merits = [row["P@1"] + row["P@5"] + row["R@10"] for row in sweep]
    chosen = tuple(choices["chosen"][name] for name in names)
    assert chosen == weights[merits.index(max(merits))]
    labels = pq.read_table(finished / "data/curated/labels.parquet").num_rows
    unseen = pq.read_table(finished / "data/curated/unseen/labels.parquet").num_rows
    for split in ("test", "valid"):
        told = choices["unseen"][split]
        assert (told["labels"], told["unseen"]) == (labels, unseen)
        assert set(told["alpha_1"]) == {"P@1", "P@5", "R@10", "R@100"}


def test_costs_are_in_metrics_runtime_alone(finished):
    costs = {"seconds", "peak_memory_mb", "items", "items_per_second", "device", "machine"}
    for name in STAGES:
        told = read_json(finished / f"metrics/runtime/{name}.json")
        assert costs - {"machine"} <= set(told), name
        assert told["peak_memory_mb"] > 10
        facts = read_json(finished / f"metrics/{name}.json")
        # another mix does not need folds: nothing to do, in less than the 0.01 s that are told
        assert name == "folds" or facts and told["items"] > 0 and told["seconds"] > 0, name
        assert not set(told) & set(keys_of(facts)), name
        assert not any(word in key for key in keys_of(facts) for word in ("second", "_mb"))
    assert read_json(finished / "metrics/runtime/evaluate.json")["milliseconds_per_datapoint"] > 0


def keys_of(value: object) -> Iterator[str]:
    """The keys of an object and of those in it."""
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from keys_of(inner)


def described(home: Path) -> np.ndarray:
    """(P,) bool: the products that have a descriptor."""
    stored = Precomputed(home / "data/precomputed")
    of = {
        "text": stored.token_lengths,
        "lexical": lambda: stored.lexical_rows().lengths(),
        "image": lambda: stored.image_rows().lengths(),
    }
    return np.logical_or.reduce([of[name]() > 0 for name in stored.manifest()["modalities"]])


def test_precompute_reports_the_manifest_without_file_names(finished):
    manifest = read_json(finished / "data/precomputed/manifest.json")
    facts = read_json(finished / "metrics/precompute.json")
    assert facts["image"].pop("examples").keys() == manifest["image"]["dropped"].keys()
    image = {name: fact for name, fact in manifest["image"].items() if name != "shards"}
    assert facts == {"products": manifest["products"], "image": image, "text": manifest["text"]}


def test_popularity_csv_sums_to_recall(finished):
    table, sums = methods(finished), {}
    with open(finished / "metrics/popularity.csv", newline="") as file:
        for row in csv.DictReader(file):
            sums.setdefault(row["method"], []).append(float(row["R@10"]))
    assert set(sums) == {method for method, _ in table}
    for method, parts in sums.items():
        assert len(parts) == 5
        assert sum(parts) == pytest.approx(table[method, "test"]["R@10"], abs=1e-3)


def test_categories_csv_averages_to_precision(finished):
    table, counts, sums = methods(finished), {}, {}
    with open(finished / "metrics/categories.csv", newline="") as file:
        for row in csv.DictReader(file):
            count, name = int(row["datapoints"]), row["method"]
            counts[name] = counts.get(name, 0) + count
            sums[name] = sums.get(name, 0.0) + count * float(row["P@5"])
    test = pq.read_table(finished / "data/curated/test.parquet").num_rows
    assert set(counts.values()) == {test} and set(counts) == {method for method, _ in table}
    for method, total in sums.items():
        assert total / test == pytest.approx(table[method, "test"]["P@5"], abs=1e-3)


# A run while it is under way, and in another folder


def test_the_finetune_curve_grows_by_a_row_per_epoch(finished, tmp_path, monkeypatch):
    home, seen = tmp_path / "home", []
    linked(finished, home)
    for name in ("data/shortlists", "models/transfer"):
        (home / name).symlink_to(finished / name)
    (home / "models/finetune").unlink()
    figures = finetune.valid_figures

    def watched(*args):
        path = home / "metrics/finetune.csv"
        seen.append(len(path.read_text().splitlines()) if path.exists() else 0)
        return figures(*args)

    monkeypatch.setattr(finetune, "valid_figures", watched)
    changes = {"finetune.select": "valid", "finetune.epochs": 4}
    with inside(home, **FINISHED | changes):
        finetune.main(home)
    members = load_params(home / "params.yaml").members
    assert seen == [0, 2, 3, 4] + [5] * 4 * (members - 1)  # a header and a row per finished epoch
    with open(home / "metrics/finetune.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert list(rows[0]) == ["epoch", "loss", "valid_P@1", "valid_P@5"]


@pytest.mark.parametrize("rows, way, optimiser", [(4, "dense", "AdamW;"), (0, "rows", "eta")])
def test_auto_gives_the_weights_of_what_it_chose(
    finished, tmp_path, monkeypatch, capfd, rows, way, optimiser
):
    monkeypatch.setattr(table_updates, "ROWS", rows)
    found = []
    for update in ("auto", way):
        home = tmp_path / update
        linked(finished, home)
        for name in ("data/shortlists", "models/transfer"):
            (home / name).symlink_to(finished / name)
        (home / "models/finetune").unlink()
        with inside(home, **FINISHED | {"finetune.free_update": update, "finetune.epochs": 1}):
            finetune.main(home)
        weights = sorted((home / "models/finetune").glob("*/model.safetensors"))
        found.append([path.read_bytes() for path in weights])
        said = capfd.readouterr().err
        assert ("(finetune.free_update: auto)" in said) == (update == "auto")
        assert optimiser in read_json(home / "metrics/finetune.json")["optimiser"]
    assert found[0] == found[1] != []


def test_home_runs_a_stage_in_another_folder(finished, tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with inside(tmp_path, **FINISHED):
        linked(finished, home)
        (home / "params.yaml").write_bytes((finished / "params.yaml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.evaluate", "--home", str(home)],
        cwd=elsewhere,
        env=environment(PYTHONPATH=str(ROOT), MUFIN_SCRATCH=str(tmp_path / "scratch")),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert list(elsewhere.iterdir()) == []
    for name in ("metrics/evaluate.json", "models/mix.json", "data/predictions/test.parquet"):
        assert (home / name).read_bytes() == (finished / name).read_bytes()
    table, lines = methods(finished), done.stdout.splitlines()
    assert lines[0].startswith("test, cold split, ") and "P@1" in lines[1]
    printed = {line.split()[0]: float(line.split()[1]) for line in lines[2:]}
    assert printed == {
        method: pytest.approx(figures["P@1"], abs=0.006)
        for (method, split), figures in table.items()
        if split == "test"
    }


def test_only_evaluate_prints(finished, tmp_path, capsys):
    home = tmp_path / "home"
    linked(finished, home)
    (home / "models/index").unlink()
    with inside(home, **FINISHED):
        run_stages(home, "index", "index")
        assert capsys.readouterr().out == ""
        lines = evaluate.evaluate(home)
        assert capsys.readouterr().out == "" and len(lines) == 15

"""Formulas of bytes against the files of a small finished run, and memory against arrays."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from safetensors import safe_open

from mufin.params import load_params
from mufin.planning.data_stages import precomputed_files
from mufin.planning.evaluate_stage import rows_of_methods
from mufin.planning.finetune_stage import NEGATIVES, finetune
from mufin.planning.found import sizes_in
from mufin.planning.machine import Machine
from mufin.planning.network import network_of
from mufin.planning.prediction_stages import index_files
from mufin.planning.run import Run
from mufin.planning.search import graph_file
from mufin.planning.sizes import sizes_of
from mufin.planning.training_stages import pretrain
from mufin.planning.training_steps import embeddings_file
from mufin.ragged import Lists
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.hnsw import HnswNeighbours
from mufin.training import mining

WITHIN = 0.15  # share by which a formula may differ from a file
SMALL_MACHINE = Machine(
    host=8e9,
    gpu=0,
    disk=1e11,
    cores=1,
    gpu_flop=7.9e14,
    gpu_full_flop=6e13,
    gpu_share=0.4,
    cpu_flop=1e11,
    cpu_share=0.5,
    gpu_moved=4e12,
    cpu_moved=2e10,
    disk_per_second=2e9,
)


@pytest.fixture(scope="module")
def run(finished) -> Run:
    params = load_params(finished / "params.yaml")
    sizes = sizes_of(params, {}, sizes_in(finished), None)
    return Run(params, sizes, network_of(params, sizes), SMALL_MACHINE)


def about(size: float):
    return pytest.approx(size, rel=WITHIN)


def bytes_of(*paths) -> int:
    return sum(path.stat().st_size for path in paths)


def test_sizes_are_those_of_the_tables(finished, run):
    import pyarrow.parquet as pq

    table = pq.read_table(finished / "data/curated/train.parquet")
    assert run.sizes.train == len(table)
    assert run.sizes.pairs == pytest.approx(len(table["labels"].combine_chunks().flatten()))
    products = pq.read_table(finished / "data/curated/products.parquet")
    references = len(products["images"].combine_chunks().flatten())
    assert run.sizes.references == pytest.approx(references)
    assert run.sizes.origins["labels"] == "data/"


@pytest.mark.parametrize(
    "part, pattern",
    [
        ("image_inputs", "image_inputs-*"),
        ("tokens", "token*"),
        ("image_rows", "image_[or]*.npy"),
    ],
)
def test_precomputed_arrays_have_their_bytes(finished, run, part, pattern):
    found = [p for p in (finished / "data/precomputed").glob(pattern) if "mean" not in p.name]
    assert precomputed_files(run)[part] == about(bytes_of(*found))


def test_embeddings_and_shortlists_have_their_bytes(finished, run):
    found = bytes_of(finished / "data/embeddings/pretrain.safetensors")
    assert embeddings_file(run) == about(found)
    shortlists = bytes_of(*(finished / "data/shortlists").glob("*.parquet"))
    assert run.ranking_file(run.splits, 100) == about(shortlists)


def test_networks_have_their_bytes(finished, run):
    for stage in (pretrain(run), finetune(run)):
        name, size = next(iter(stage.files.items()))
        assert size == about(bytes_of(*(finished / name).glob("*/model.safetensors")))


def test_the_index_has_its_bytes_part_by_part(finished, run):
    path, parts = finished / "models/index/index.safetensors", index_files(run)
    assert sum(parts.values()) - parts["ridge"] == about(bytes_of(path))
    with safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    bags = [a for name, a in arrays.items() if name.split("/")[-1] in ("rows", "vectors")]
    bags = [a for a in bags if len(a) != run.sizes.train]
    assert parts["bags"] == about(sum(a.nbytes for a in bags))
    assert parts["centroids"] == arrays["centroids"].nbytes


def test_methods_csv_has_the_rows_that_are_held(finished, run):
    import csv

    with open(finished / "metrics/methods.csv") as file:
        found = {row["method"] for row in csv.DictReader(file)}
    assert rows_of_methods(run) == len(found)


@pytest.mark.parametrize("m, dim", [(16, 24), (5, 8)])
def test_a_graph_file_has_its_bytes(tmp_path, m, dim):
    rng = np.random.default_rng(0)
    rows = LabelRows(rng.random((2000, dim), np.float32), np.arange(2000), 2000)
    HnswNeighbours(rows, m, 20, 20).save(tmp_path)
    found = bytes_of(tmp_path / "hnsw.bin")
    assert graph_file(2000, dim, m) == pytest.approx(found, rel=0.03)


def test_negatives_of_shortlists_take_their_memory(monkeypatch):
    monkeypatch.setattr(mining, "AT_ONCE", 2**12)
    rng, (n, k) = np.random.default_rng(0), (10_000, 50)
    every = np.tile(np.arange(500, dtype=np.int32), (n, 1))
    shortlist = Lists.of_padded(rng.permuted(every, axis=1)[:, :k])
    truth = Lists.of_padded(rng.integers(500, size=(n, 3)))
    tracemalloc.start()
    mining.shortlist_negatives(shortlist, truth, truth.only(np.zeros(3 * n, bool)), 500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert NEGATIVES * n * k == pytest.approx(peak, rel=0.5)

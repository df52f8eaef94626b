"""`retrieve.model: pretrain`: candidates and similarities of Module I, scores of Module IV."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mufin.artifacts.curated import read_curated
from mufin.artifacts.embeddings import read_embeddings
from mufin.errors import ArtifactError
from mufin.nn.embedding import unit_rows
from mufin.params import load_params
from mufin.ranking.trained import load_predictor
from mufin.serving.query import Query
from mufin.serving.recommender import Recommender
from tests.support.stages import QUICK, inside, run_stages

CPU, FP32 = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("pretrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUFIN_DEVICE", "cpu")
        patch.setenv("MUFIN_WORKERS", "1")
        with inside(home, **QUICK | {"retrieve.model": "pretrain", "members": 2}):
            run_stages(home, "download", "evaluate")
    return home


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch) -> None:
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")


def predictor(home: Path):
    return load_predictor(home, load_params(home / "params.yaml").encoder.modalities, CPU, FP32)


def test_similarity_is_module_one_s_by_a_slow_loop(run):
    data, made = read_curated(run / "data/curated"), predictor(run)
    of_module_one = read_embeddings(run / "data/embeddings/pretrain.safetensors")
    products = data.splits["test"].product[:10]
    x = of_module_one.datapoints("test")[:10]
    ids, similarity = made.retrieve(made.embed(products), 20, None)
    mu, offsets = unit_rows(of_module_one.centroids), of_module_one.label_offsets
    for row in range(len(products)):
        slow = np.full(len(data.labels), -np.inf)
        for label in range(len(data.labels)):
            own = of_module_one.label_rows[offsets[label] : offsets[label + 1]]
            rows = [*own, *([mu[label]] if mu[label].any() and len(own) else [])]
            slow[label] = max((float(r @ x[row]) for r in rows), default=-np.inf)
        np.testing.assert_allclose(similarity[row], np.sort(slow)[::-1][:20], atol=1e-5)
        np.testing.assert_allclose(slow[ids[row]], similarity[row], atol=1e-5)


def test_similarity_is_the_fine_tuned_networks_by_a_slow_loop(finished):
    made, data = predictor(finished), read_curated(finished / "data/curated")
    x = made.embed(data.splits["test"].product[:10])
    ids, similarity = made.retrieve(x, 20, None)
    labels, width = made.index.labels, x[0].vectors.shape[1]
    for row in range(10):
        slow = np.full(len(data.labels), -np.inf)
        for label in range(len(data.labels)):
            first, end = labels[0].offsets[label : label + 2]
            found = [
                np.mean([unit_rows(e.rows)[n] @ q.vectors[row] for e, q in zip(labels, x)])
                for n in range(first, end)
            ]
            centroid = unit_rows(made.index.centroids)[label]
            if len(found) and centroid.any():
                parts = [centroid[m * width : (m + 1) * width] for m in range(len(x))]
                halves = [p @ q.vectors[row] for p, q in zip(parts, x)]
                found.append(sum(halves) / np.sqrt(len(x)))
            slow[label] = max(found, default=-np.inf)
        np.testing.assert_allclose(similarity[row], np.sort(slow)[::-1][:20], atol=1e-5)
        np.testing.assert_allclose(slow[ids[row]], similarity[row], atol=1e-5)


def test_vec_finds_labels_by_z_alone_also_in_predictions(run, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(run, home)
    changes = {"retrieve.model": "pretrain", "retrieve.vectors": "vec", "members": 2}
    with inside(home, **QUICK | changes):
        run_stages(home, "index", "evaluate")
    made, data = predictor(home), read_curated(home / "data/curated")
    of_module_one = read_embeddings(home / "data/embeddings/pretrain.safetensors")
    ids, similarity = made.retrieve(made.embed(data.splits["test"].product[:10]), 20, None)
    slow = of_module_one.datapoints("test")[:10] @ of_module_one.label_vectors.T
    slow[:, np.diff(of_module_one.label_offsets) == 0] = -np.inf
    np.testing.assert_allclose(similarity, -np.sort(-slow, 1)[:, :20], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(slow, ids, 1), similarity, atol=1e-5)


def test_scores_stay_those_of_the_fine_tuned_networks(run):
    made, data = predictor(run), read_curated(run / "data/curated")
    x = made.embed(data.splits["test"].product[:5])
    ids = np.tile(np.arange(10), (5, 1))
    plain = [type(e)(e.rows, e.modality, e.offsets, e.vectors) for e in x]
    np.testing.assert_array_equal(made.score(x, ids), made.score(plain, ids))
    assert not np.allclose(x[0].vectors, x[0].search)


def test_the_recommender_answers_as_evaluate_predicts(run):
    served = Recommender.load(run)
    test = pq.read_table(run / "data/curated/test.parquet")["product"].to_pylist()
    labels = pq.read_table(run / "data/curated/labels.parquet")["product"].to_pylist()
    predicted = pq.read_table(run / "data/predictions/test.parquet").to_pylist()
    uids = served.model.uids
    answers = served.recommend_batch([Query(uids=(uids[p],), k=100) for p in test])
    for row, asked in zip(predicted, answers, strict=True):
        assert [a.uid for a in asked] == [uids[labels[n]] for n in row["labels"]]


def test_networks_of_another_module_one_are_refused(run, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(run, home)
    with inside(home, **QUICK | {"retrieve.model": "pretrain", "members": 2, "seed": 5}):
        run_stages(home, "pretrain", "pretrain")
    with pytest.raises(ArtifactError, match="models/pretrain.* of different runs"):
        predictor(home)

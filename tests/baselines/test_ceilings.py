"""The bilinear softmax against slow loops and scikit-learn; the ceilings on a generated world."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mufin.artifacts.tables import read_table
from mufin.baselines import ceiling, ceiling_pictures, ceiling_titles, popular
from mufin.baselines.shared import bilinear_softmax
from mufin.baselines.shared.bilinear_softmax import Penalties, fitted
from mufin.baselines.shared.ceilings import one_hot
from mufin.baselines.shared.loading import sample_attributes
from mufin.baselines.shared.task import Task
from mufin.corpus.sample import best_attainable, draw_relations, invent_world
from mufin.corpus.sample_attributes import SHOWN, VALUES, Attributes
from mufin.errors import ArtifactError, MufinError
from mufin.metrics import precision_at_k
from mufin.ragged import Lists
from tests.support.artifacts import sealed

N, A, B, L = 60, 3, 2, 7


def case(seed: int = 0) -> tuple[np.ndarray, np.ndarray, Lists]:
    """Attributes of datapoints and labels, and one to three labels per datapoint."""
    rng = np.random.default_rng(seed)
    truth = [rng.permutation(L)[: rng.integers(1, 4)] for _ in range(N)]
    return rng.normal(size=(N, A)), rng.normal(size=(L, B)), Lists.of_rows(truth)


def slow_loss(asked, labels, truth: Lists, w, e, c, penalties: Penalties) -> float:
    """The docstring of `fitted`, pair by pair in float64."""
    loss = 0.0
    for p in range(len(truth)):
        scores = np.array([asked[p] @ (w @ labels[k] + e[k]) + c[k] for k in range(L)])
        for label in truth[p]:
            loss -= np.log(np.exp(scores[label]) / np.exp(scores).sum())
    squares = (penalties.shared, w), (penalties.free, e), (penalties.bias, c)
    return loss + sum(weight / 2 * (part**2).sum() for weight, part in squares)


def test_no_step_from_the_fit_lowers_the_slow_loss():
    asked, labels, truth = case()
    penalties, free = Penalties(shared=1.3, free=0.7, bias=0.2), np.array([False, True, False])
    model = fitted(asked, labels, truth, free, penalties)
    # W from the attributes that are not free, e from what is left of the free one at its optimum
    w = np.linalg.lstsq(labels, model.columns.T, rcond=None)[0].T
    # of the free attribute W b + e is known, its split is the one with the least penalty
    gram = penalties.free * labels.T @ labels + penalties.shared * np.eye(B)
    w[1] = np.linalg.solve(gram, penalties.free * labels.T @ model.columns[1])
    e = np.zeros((L, A))
    e[:, 1] = model.columns[1] - w[1] @ labels.T
    assert model.columns.T == pytest.approx(labels @ w.T + e, abs=1e-4)
    best = slow_loss(asked, labels, truth, w, e, model.bias, penalties)
    rng = np.random.default_rng(1)
    for size in (0.02, 0.2):
        for _ in range(20):
            steps = [size * rng.normal(size=part.shape) for part in (w, e, model.bias)]
            steps[1][:, [0, 2]] = 0
            moved = (w + steps[0], e + steps[1], model.bias + steps[2])
            assert slow_loss(asked, labels, truth, *moved, penalties) > best


def test_free_rows_alone_are_logistic_regression():
    rng = np.random.default_rng(2)
    asked, codes = rng.normal(size=(200, 4)), rng.integers(0, 5, 200)
    asked[:, 0] += codes
    truth = Lists(np.arange(201), codes)
    ours = fitted(asked, np.zeros((5, 0)), truth, np.ones(4, bool), Penalties(free=2, bias=0))
    theirs = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(asked, codes)
    scores = ours.scores(asked)
    odds = np.exp(scores - scores.max(1, keepdims=True))
    found = odds / odds.sum(1, keepdims=True)
    assert found == pytest.approx(theirs.predict_proba(asked), abs=2e-3)


def test_a_shared_map_of_one_column_per_label_is_free_rows():
    asked, _, truth = case(3)
    none, every = np.zeros(A, bool), np.ones(A, bool)
    shared = fitted(asked, np.eye(L), truth, none, Penalties(shared=0.8))
    free = fitted(asked, np.zeros((L, 0)), truth, every, Penalties(free=0.8))
    assert shared.scores(asked) == pytest.approx(free.scores(asked), abs=5e-3)


def test_without_attributes_the_scores_are_log_frequencies():
    _, _, truth = case(4)
    model = fitted(np.zeros((N, 1)), np.zeros((L, 0)), truth, np.zeros(1, bool), Penalties(bias=0))
    share = np.exp(model.bias) / np.exp(model.bias).sum()
    assert share == pytest.approx(np.bincount(truth.values, minlength=L) / len(truth.values), 1e-3)


def test_chunks_change_nothing(monkeypatch):
    asked, labels, truth = case(5)
    free = np.array([True, False, True])
    whole = fitted(asked, labels, truth, free, Penalties())
    monkeypatch.setattr(bilinear_softmax, "BUDGET", 8 * L)
    parts = fitted(asked, labels, truth, free, Penalties())
    assert parts.scores(asked) == pytest.approx(whole.scores(asked), abs=5e-3)


def test_one_column_is_on_per_attribute():
    codes = {name: np.array([0, 2]) for name in VALUES}
    known = {name: np.array([True, name == "kind"]) for name in VALUES}
    found = one_hot(codes, known)
    assert found.shape == (2, 25 + 13 + 6) and (found.sum(1) == 3).all()
    assert np.flatnonzero(found[1]).tolist() == [2, 25 + 12, 25 + 13 + 5]


SIZE, SEED = 900, 1


def world_task() -> tuple[Task, Lists, float]:
    """A cold split of a world, the truth of test, and the best attainable P@5 there.

    One of five titles tells the motif; some products lack a title or pictures.
    """
    world = invent_world(SIZE, SEED)
    related = draw_relations(world, SEED)
    rng = np.random.default_rng(SEED)
    part = rng.permutation(SIZE)
    labels, test, valid = part[:550], part[550:750], part[750:790]
    is_label = np.isin(np.arange(SIZE), labels)
    place = np.full(SIZE, -1)
    place[labels] = np.arange(len(labels))
    titled, pictured = rng.random(SIZE) > 0.04, rng.random(SIZE) > 0.05
    named = rng.random(SIZE) < 0.2
    every = Attributes(
        {name: getattr(world, name) for name in VALUES},
        {n: titled & (named if n not in ("kind", "house") else True) for n in VALUES},
        {n: pictured & (n in SHOWN) for n in VALUES},
    )
    splits = {"train": np.concatenate([labels, part[790:]]), "valid": valid, "test": test}
    truth = {
        name: Lists.of_rows([place[[r for r in related[p] if is_label[r]]] for p in products])
        for name, products in splits.items()
    }
    products = splits | {"labels": labels}
    task = Task(
        {name: [""] * len(rows) for name, rows in products.items()},
        {name: truth[name] for name in ("train", "valid")},
        {name: Lists.of_rows([[]] * len(rows)) for name, rows in splits.items()},
        attributes=lambda: {name: every.take(rows) for name, rows in products.items()},
    )
    asked = np.zeros(SIZE, bool)
    asked[test] = True
    facts = best_attainable(world, [r if asked[p] else [] for p, r in enumerate(related)], is_label)
    # its datapoints are all products that are no labels; those outside test have no truth
    return task, truth["test"], facts["P@5"] * (~is_label).sum() / len(test)


def test_who_knows_more_is_higher_and_none_passes_the_attainable():
    task, truth, attainable = world_task()
    rows = (popular, ceiling_pictures, ceiling_titles, ceiling)
    found = {
        row.__name__.rpartition(".")[2]: precision_at_k(row.baseline(task, 0)("test")[0], truth, 5)
        for row in rows
    }
    assert found["popular"] + 5 < min(found["ceiling_pictures"], found["ceiling_titles"])
    assert max(found["ceiling_pictures"], found["ceiling_titles"]) + 3 < found["ceiling"]
    assert found["ceiling"] <= attainable + 2  # standard error of P@5


@pytest.mark.parametrize("row", [ceiling, ceiling_titles, ceiling_pictures])
def test_another_catalog_has_no_ceiling(row):
    none = {name: Lists.of_rows([[]]) for name in ("train", "valid", "test")}
    titles = {name: ["a"] for name in (*none, "labels")}
    task = Task(titles, {"train": Lists.of_rows([[0]]), "valid": none["valid"]}, none)
    with pytest.raises(MufinError, match="needs the attributes of the built-in sample"):
        row.baseline(task, 0)


def test_attributes_are_those_of_the_curated_products(finished, tmp_path):
    table = read_table(finished / "data/curated/products.parquet", "products")
    found = sample_attributes(table, finished / "data/raw/source.json")
    assert len(found.codes["kind"]) == len(table)
    facts = json.loads((finished / "data/raw/source.json").read_text())
    for change, said in (
        ({"source": "folder"}, "the data are another catalog"),
        ({"sample": facts["sample"] | {"seed": 77}}, "are not those of the sample"),
        ({"sample": facts["sample"] | {"products": 60}}, "no product of a sample of 60"),
    ):
        (tmp_path / "source.json").write_text(json.dumps(facts | change))
        sealed(tmp_path)
        with pytest.raises(MufinError, match=said):
            sample_attributes(table, tmp_path / "source.json")
    with pytest.raises(ArtifactError, match="missing"):
        sample_attributes(table, tmp_path / "none.json")

"""The baselines without networks: against slow loops and scikit-learn, and predictions' form."""

from __future__ import annotations

import gc
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

from mufin.baselines import (
    bonsai,
    frozen_datapoints,
    frozen_labels,
    popular,
    ridge,
    tfidf_datapoints,
    tfidf_labels,
    xt,
)
from mufin.baselines.ridge import KernelRidge
from mufin.baselines.shared import neighbours
from mufin.baselines.shared.popularity import filled, filled_pairs
from mufin.baselines.shared.popularity import popular as most_popular
from mufin.baselines.shared.task import WIDTH, Descriptors, Task
from mufin.baselines.shared.tfidf import title_words
from mufin.errors import MufinError
from mufin.ragged import Lists, is_in

SERIES, KINDS = 24, 8
LABELS, SIZES = SERIES * 5, {"train": 300, "valid": 40, "test": 100}
LEARNING = {
    module.__name__.rpartition(".")[2]: module.baseline
    for module in (
        bonsai,
        xt,
        ridge,
        tfidf_datapoints,
        frozen_datapoints,
        tfidf_labels,
        frozen_labels,
    )
}
BASELINES = LEARNING | {"popular": popular.baseline}
SEEDED = {name: made for name, made in BASELINES.items() if name != "bonsai"}  # which takes no seed
LIBRARIES = {"bonsai": "omikuji", "xt": "napkinxc"}  # without a wheel for some machines


def has(name: str) -> bool:
    """Whether the library of a baseline is installed."""
    return name not in LIBRARIES or find_spec(LIBRARIES[name]) is not None


@pytest.fixture(autouse=True)
def library(request) -> None:
    """Skips a test of a baseline, its parameter `name`, whose library is not installed."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if not has(name):
        pytest.skip(f"{LIBRARIES[name]} is not installed")


def catalog(seed: int = 0, noise: float = 0.25) -> tuple[Task, Lists]:
    """A task of series, and the truth of test.

    A product is related to labels of its own series, which its title names, and to one label of
    another series. The frozen descriptors show the series too.
    """
    rng = np.random.default_rng(seed)
    series = {name: rng.integers(SERIES, size=n) for name, n in SIZES.items()} | {
        "labels": np.arange(LABELS) % SERIES
    }
    look = rng.normal(size=(SERIES, 16))
    titles, descriptors, truth, excluded = {}, {}, {}, {}
    for name, mine in series.items():
        titles[name] = [f"s{s} kind{rng.integers(KINDS)} set" for s in mine]
        descriptors[name] = {
            kind: (look[mine] + noise * rng.normal(size=(len(mine), 16))).astype(np.float32)
            for kind in ("text", "image")
        }
        if name != "labels":
            own = [
                rng.choice(np.flatnonzero(series["labels"] == s), 3, replace=False) for s in mine
            ]
            rows = [np.union1d(labels, rng.integers(LABELS, size=1)) for labels in own]
            pairs = [rng.choice(LABELS, rng.integers(0, 4), replace=False) for _ in mine]
            excluded[name] = Lists.of_rows(pairs)
            truth[name] = Lists.of_rows(rows).minus(excluded[name])
    titles["train"][:3], titles["test"][:3] = ["", "zzz", "s1"], ["", "unheard", "s2"]
    descriptors["test"]["image"][:5] = descriptors["train"]["image"][:5] = 0
    descriptors["test"]["text"][0] = 0  # and no title: test datapoint 0 has nothing at all
    known = {n: truth[n] for n in ("train", "valid")}
    return Task(titles, known, excluded, lambda: descriptors), truth["test"]


@pytest.fixture(scope="module")
def shop() -> tuple[Task, Lists]:
    return catalog()


@pytest.fixture(scope="module")
def answers(shop) -> dict:
    return {
        name: {split: predict(split) for split in ("valid", "test")}
        for name, predict in (
            (name, BASELINES[name](shop[0], 0)) for name in BASELINES if has(name)
        )
    }


def hits(labels: np.ndarray, truth: Lists) -> float:
    return is_in(labels[:, :1], truth).mean()


def bare(
    titles: list[str],
    truth: list[list[int]],
    names: list[str],
    asked: list[str],
    frozen: Descriptors | None = None,
) -> Task:
    """No filter pairs, nothing in valid; `frozen` descriptors by split."""
    none = {
        name: Lists.of_rows([[]] * n)
        for name, n in (("train", len(titles)), ("valid", 0), ("test", len(asked)))
    }
    if frozen:
        frozen = frozen | {"valid": {kind: rows[:0] for kind, rows in frozen["test"].items()}}
    return Task(
        {"train": titles, "valid": [], "test": asked, "labels": names},
        {"train": Lists.of_rows(truth), "valid": none["valid"]},
        none,
        lambda: frozen or {},
    )


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("name", BASELINES)
def test_predictions_are_unique_sorted_full_and_without_filter_pairs(shop, answers, name, split):
    task, (labels, scores) = shop[0], answers[name][split]
    assert (
        labels.shape == scores.shape == (SIZES[split], WIDTH)
        and labels.dtype == np.int64
        and scores.dtype == np.float32
    )
    assert labels.min() >= 0 and labels.max() < LABELS and np.isfinite(scores).all()
    assert all(len(set(row)) == WIDTH for row in labels.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()
    assert not is_in(labels, task.excluded[split]).any()


@pytest.mark.parametrize("name", LEARNING)
def test_learning_baselines_double_the_hits_of_popularity(shop, answers, name):
    truth = shop[1]
    by_chance = np.random.default_rng(0).permuted(
        np.tile(np.arange(LABELS), (SIZES["test"], 1)), axis=1
    )
    assert hits(answers[name]["test"][0], truth) > 2 * max(
        hits(answers["popular"]["test"][0], truth), hits(by_chance, truth)
    )
    assert hits(answers[name]["test"][0], truth) > 0.3


def test_the_most_popular_labels_come_first():
    truth = [[0], [0, 1], [0], [2]] * 5
    labels, _ = popular.baseline(bare([""] * 20, truth, [""] * 50, [""] * 4), 0)("test")
    assert labels[:, :3].tolist() == [[0, 1, 2]] * 4 and (labels[:, 50:] == -1).all()


@pytest.mark.parametrize("name", SEEDED)
def test_the_same_seed_gives_the_same_predictions(shop, answers, name):
    labels, scores = SEEDED[name](shop[0], 0)("test")
    assert np.array_equal(labels, answers[name]["test"][0]) and np.array_equal(
        scores, answers[name]["test"][1]
    )


def test_xt_draws_another_tree_from_another_seed(shop, answers):
    pytest.importorskip("napkinxc")
    zero, one, two = (xt.trained(shop[0], seed)("test")[1] for seed in range(3))
    assert not np.array_equal(zero, one) and not np.array_equal(one, two)


@pytest.mark.parametrize("name", ["tfidf_labels", "tfidf_datapoints"])
def test_a_title_without_known_words_gets_popular_labels(shop, answers, name):
    task = shop[0]
    expected = most_popular(
        task.truth["train"], LABELS, SIZES["test"], WIDTH, task.excluded["test"]
    )[0]
    assert np.array_equal(answers[name]["test"][0][:2], expected[:2])
    assert not np.array_equal(answers[name]["test"][0][3], expected[3])


def test_a_datapoint_without_descriptors_gets_popular_labels(shop, answers):
    task = shop[0]
    expected = most_popular(
        task.truth["train"], LABELS, 1, WIDTH, task.excluded["test"].take(np.array([0]))
    )[0]
    assert np.array_equal(answers["frozen_datapoints"]["test"][0][:1], expected)


@pytest.mark.parametrize("name", BASELINES)
def test_a_task_without_train_relations_is_refused(shop, name):
    task = shop[0]
    with pytest.raises(MufinError, match="nothing to learn from"):
        BASELINES[name](
            replace(task, truth=task.truth | {"train": Lists.of_rows([[]] * SIZES["train"])}), 0
        )


@pytest.mark.parametrize("name", BASELINES)
def test_tiny_catalogs_are_predicted_in_full(name):
    eye, ones = np.eye(3, dtype=np.float32), np.ones((4, 3), np.float32)
    frozen = {
        name: {"text": rows} for name, rows in (("train", eye), ("test", eye[:2]), ("labels", ones))
    }
    task = bare(
        ["red lamp", "mug", "cup"],
        [[1], [1, 3], []],
        ["red", "lamp", "mug", "cup"],
        ["red", ""],
        frozen,
    )
    labels, _ = BASELINES[name](task, 0)("test")
    assert [sorted(row[:4]) for row in labels.tolist()] == [[0, 1, 2, 3]] * 2 and (
        labels[:, 4:] == -1
    ).all()
    one = bare(
        ["red lamp"],
        [[0]],
        ["red"],
        ["red", ""],
        frozen | {n: {"text": eye[:1]} for n in ("train", "labels")},
    )
    assert BASELINES[name](one, 0)("test")[0][:, :2].tolist() == [[0, -1]] * 2
    assert BASELINES[name](one, 0)("valid")[0].shape == (0, WIDTH)


@pytest.mark.parametrize(
    "name, module, package",
    [("bonsai", "omikuji", "omikuji"), ("xt", "napkinxc.models", "napkinxc")],
)
def test_a_missing_library_is_one_sentence(shop, monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MufinError, match=rf"{package} is not installed; pip install '\.\[baselines\]'"
    ):
        BASELINES[name](shop[0], 0)


@pytest.mark.parametrize("name", ["bonsai", "xt"])
def test_libraries_print_nothing(shop, capfd, name):
    predict = BASELINES[name](shop[0], 0)
    print("shown again")
    predict("test")
    assert capfd.readouterr() == ("shown again\n", "")


def test_several_trees_of_xt_print_nothing_and_leave_no_file(shop, capfd, monkeypatch, tmp_path):
    pytest.importorskip("napkinxc")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    predict = xt.trained(shop[0], 0, trees=3)
    first = predict("test")
    assert any(tmp_path.iterdir())  # the trees are read again at each prediction
    assert np.array_equal(first[0], predict("test")[0])
    del predict
    gc.collect()
    assert not any(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["bonsai", "xt", "ridge"])
def test_without_words_and_descriptors_the_error_says_so(name):
    with pytest.raises(MufinError, match="none of the 2 train datapoints has a word"):
        BASELINES[name](bare(["", "!"], [[0], [1]], ["a", "b"], ["c"]), 0)


@pytest.mark.parametrize("name", ["frozen_datapoints", "frozen_labels"])
def test_frozen_neighbours_without_descriptors_say_so(shop, name):
    with pytest.raises(MufinError, match="no frozen descriptors"):
        BASELINES[name](replace(shop[0], encode=dict), 0)


def test_words_and_idf_are_those_of_train_alone():
    task = bare(["red lamp", "red mug"], [[0], [0]], ["cup"], ["red cup", "cup", "lamp lamp"])
    words = title_words(task)
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit(
        ["red lamp", "red mug"]
    )
    assert words["test"].toarray() == pytest.approx(
        vectorizer.transform(task.titles["test"]).toarray()
    )
    assert words["test"][1].nnz == 0 and words["valid"].shape == (0, 3)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_filled_rows_go_on_by_popularity(data):
    count = data.draw(st.integers(1, 130), "labels")
    ids = st.integers(0, count - 1)
    train = [
        sorted(row) for row in data.draw(st.lists(st.sets(ids, max_size=4), min_size=1, max_size=8))
    ] + [[0]]
    gone = [
        sorted(row) for row in data.draw(st.lists(st.sets(ids, max_size=5), min_size=1, max_size=4))
    ]
    pairs = [
        list(
            {
                label: (label, score)
                for label, score in data.draw(
                    st.lists(st.tuples(ids, st.integers(-50, 50).map(float)), max_size=2 * WIDTH)
                )
            }.values()
        )
        for _ in gone
    ]
    task = bare([""] * len(train), train, [""] * count, [""] * len(gone))
    task = replace(task, excluded=task.excluded | {"test": Lists.of_rows(gone)})
    labels, scores = filled_pairs(task, "test", pairs)
    frequency = np.bincount(np.concatenate([np.array(row, int) for row in train]), minlength=count)
    for i, row in enumerate(pairs):
        found = [
            label for label, _ in sorted(row, key=lambda p: (-p[1], p[0])) if label not in gone[i]
        ]
        rest = sorted(
            set(range(count)) - set(found + gone[i]), key=lambda label: (-frequency[label], label)
        )
        expected = (found + rest)[:WIDTH]
        assert labels[i].tolist() == expected + [-1] * (WIDTH - len(expected))
        assert (np.diff(scores[i, : len(expected)]) <= 0).all() and (
            scores[i, len(expected) :] == -np.inf
        ).all()
    assert np.array_equal(filled(task, "test", labels, scores)[0], labels)


def unit_slowly(row: np.ndarray) -> np.ndarray:
    norm = np.sqrt((row.astype(np.float64) ** 2).sum())
    return row / norm if norm else row


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.booleans())
def test_frozen_neighbours_are_those_of_a_slow_loop(seed, n, both):
    rng = np.random.default_rng(seed)
    frozen = {}
    for name, count in (("train", n), ("labels", 30), ("test", 6)):
        kinds = {"text": 5, "image": 7} if both else {"image": 7}
        frozen[name] = {
            kind: rng.normal(size=(count, width)).astype(np.float32)
            for kind, width in kinds.items()
        }
        frozen[name]["image"][rng.random(count) < 0.2] = 0
    truth = [rng.choice(30, rng.integers(1, 5), replace=False).tolist() for _ in range(n)]
    task = bare([""] * n, truth, [""] * 30, [""] * 6, frozen)
    task = replace(
        task,
        excluded=task.excluded
        | {"test": Lists.of_rows([[int(rng.integers(30))] for _ in range(6)])},
    )
    of = {
        name: [
            np.concatenate([unit_slowly(rows[i]) for rows in kinds.values()])
            for i in range(len(kinds["image"]))
        ]
        for name, kinds in frozen.items()
    }
    by_datapoints, by_labels = (
        frozen_datapoints.baseline(task, 0)("test"),
        frozen_labels.baseline(task, 0)("test"),
    )
    for i, asked in enumerate(of["test"]):
        nearest = sorted(
            ((float(asked @ row), j) for j, row in enumerate(of["train"])),
            key=lambda p: (-p[0], p[1]),
        )[:20]
        votes = np.zeros(30)
        for similarity, j in nearest:
            for label in truth[j]:
                votes[label] += max(similarity, 0)
        votes[task.excluded["test"][i]] = 0
        count = int((votes > 0).sum())
        assert by_datapoints[1][i, :count] == pytest.approx(np.sort(votes)[::-1][:count], abs=1e-5)
        assert by_datapoints[0][i, :count].tolist() == sorted(
            np.flatnonzero(votes > 0), key=lambda label: -votes[label]
        )
        closeness = np.array([asked @ row for row in of["labels"]])
        closeness[task.excluded["test"][i]] = -np.inf
        assert by_labels[1][i, :29] == pytest.approx(np.sort(closeness)[::-1][:29], abs=1e-5)
        assert sorted(by_labels[0][i, :29].tolist()) == np.flatnonzero(closeness > -np.inf).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([0.1, 1.0, 10.0]))
def test_the_kernels_scores_are_those_of_scikit_learns_ridge(seed, n, penalty):
    rng = np.random.default_rng(seed)
    x, asked = rng.normal(size=(n, 6)), rng.normal(size=(5, 6))
    truth = Lists.of_rows([rng.choice(9, rng.integers(0, 4), replace=False) for _ in range(n)])
    dense = np.zeros((n, 9))
    dense[truth.rows(), truth.values] = 1
    model = Ridge(alpha=penalty, fit_intercept=False).fit(x, dense - dense.mean(0))
    expected = model.predict(asked) + dense.mean(0)
    assert KernelRidge(x @ x.T, truth, 9, penalty).scores(asked @ x.T) == pytest.approx(
        expected, abs=1e-8
    )


@pytest.mark.parametrize("seed, noise", [(0, 0.25), (1, 1.0), (2, 2.0), (3, 4.0)])
def test_ridge_is_scikit_learns_at_its_settings(seed, noise):
    task, _ = catalog(seed, noise)
    predict = ridge.baseline(task, 0)
    labels, scores = predict("test")
    words, by_setting = title_words(task), []
    dense = np.zeros((SIZES["train"], LABELS))
    dense[task.truth["train"].rows(), task.truth["train"].values] = 1
    unit = {
        s: {k: np.array([unit_slowly(r) for r in rows]) for k, rows in task.descriptors[s].items()}
        for s in words
    }
    for some in ridge.SETTINGS:
        x = {
            s: np.concatenate(
                [
                    words[s].toarray(),
                    np.sqrt(some["text"]) * unit[s]["text"],
                    np.sqrt(some["image"]) * unit[s]["image"],
                ],
                1,
            )
            for s in words
        }
        model = Ridge(alpha=some["penalty"], fit_intercept=False)
        model.fit(x["train"], dense - dense.mean(0))
        found = {s: model.predict(x[s]) + dense.mean(0) for s in ("valid", "test")}
        found["valid"][task.excluded["valid"].rows(), task.excluded["valid"].values] = -np.inf
        order = np.argsort(-found["valid"], axis=1, kind="stable")
        right = is_in(order, task.truth["valid"])
        by_setting.append(found["test"])
        tried = predict.choice["tried"][ridge.SETTINGS.index(some)]["valid"]
        figures = {"P@1": 100 * right[:, 0].mean(), "P@5": 100 * right[:, :5].mean()}
        assert tried == pytest.approx(figures, abs=1e-3)
    expected = by_setting[ridge.SETTINGS.index(predict.choice["chosen"])]
    expected[task.excluded["test"].rows(), task.excluded["test"].values] = -np.inf
    assert scores == pytest.approx(np.take_along_axis(expected, labels, 1), abs=1e-5)
    assert scores == pytest.approx(-np.sort(-expected, axis=1)[:, :WIDTH], abs=1e-5)


def test_ridge_without_valid_weighs_all_blocks_alike(shop):
    task = shop[0]
    none = Lists.of_rows([])
    empty = {"valid": {k: a[:0] for k, a in task.descriptors["valid"].items()}}
    small = replace(
        task,
        titles=task.titles | {"valid": []},
        truth=task.truth | {"valid": none},
        excluded=task.excluded | {"valid": none},
        encode=lambda: task.descriptors | empty,
    )
    x = {
        s: np.concatenate(
            [title_words(task)[s].toarray()]
            + [np.array([unit_slowly(r) for r in rows]) for rows in task.descriptors[s].values()],
            1,
        )
        for s in ("train", "test")
    }
    dense = np.zeros((SIZES["train"], LABELS))
    dense[task.truth["train"].rows(), task.truth["train"].values] = 1
    expected = Ridge(alpha=1.0, fit_intercept=False).fit(x["train"], dense - dense.mean(0)).predict(
        x["test"]
    ) + dense.mean(0)
    labels, scores = ridge.baseline(small, 0)("test")
    assert scores == pytest.approx(np.take_along_axis(expected, labels, 1), abs=1e-5)


def test_ridge_works_on_words_or_descriptors_alone(shop, answers):
    task, truth = shop
    words_alone = ridge.baseline(replace(task, encode=dict), 0)("test")[0]
    wordless = ridge.baseline(
        replace(task, titles={name: [""] * len(rows) for name, rows in task.titles.items()}), 0
    )("test")[0]
    assert min(hits(words_alone, truth), hits(wordless, truth)) > 0.3
    assert not np.array_equal(words_alone, wordless)


def test_ridge_refuses_more_datapoints_than_its_kernel_holds(shop, monkeypatch):
    monkeypatch.setattr(ridge, "MOST", 299)
    with pytest.raises(MufinError, match="all 300 train datapoints, more than 299"):
        ridge.baseline(shop[0], 0)


def test_predictions_in_chunks_are_those_at_once(shop, answers, monkeypatch):
    monkeypatch.setattr(ridge, "BUDGET", 7 * LABELS)
    monkeypatch.setattr(neighbours, "BUDGET", 7 * LABELS)
    for name in ("ridge", "frozen_labels", "frozen_datapoints"):
        labels, scores = BASELINES[name](shop[0], 0)("test")
        assert scores == pytest.approx(answers[name]["test"][1], abs=1e-5)
        assert (
            labels == answers[name]["test"][0]
        ).mean() > 0.99  # equal scores may part in the last bit

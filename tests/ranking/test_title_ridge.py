"""One-vs-all on title words, in closed form and iterated, against scikit-learn's ridge."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.ranking import title_ridge as ridge
from mufin.ranking.order import top
from mufin.ranking.title_ridge import TitleRidge
from tests.support.artifacts import sealed

WORDS = "mug cup plate malm lack billy blue red oak small large set of 2 4 café".split()


def example(n: int, labels: int, seed: int) -> tuple[list[str], Lists]:
    rng = np.random.default_rng(seed)
    titles = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(n)]
    return titles, Lists.of_rows(
        [sorted(set(rng.integers(labels, size=rng.integers(1, 4)).tolist())) for _ in range(n)]
    )


@pytest.mark.parametrize("n, penalty", [(12, 0.3), (60, 1.0), (60, 10.0)])
def test_scores_are_those_of_scikit_learns_ridge(n, penalty):
    titles, truth = example(n, 7, n)
    asked, _ = example(20, 7, 99)
    dense = np.zeros((n, 7))
    dense[truth.rows(), truth.values] = 1
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = Ridge(alpha=penalty, fit_intercept=False).fit(
        vectorizer.fit_transform(titles).toarray(), dense - dense.mean(0)
    )
    expected = model.predict(vectorizer.transform(asked).toarray()) + dense.mean(0)
    assert TitleRidge.fit(titles, truth, 7, penalty).scores(asked) == pytest.approx(
        expected, abs=1e-5
    )


def test_a_saved_ridge_gives_the_same_scores(tmp_path):
    titles, truth = example(30, 5, 0)
    fitted = TitleRidge.fit(titles, truth, 5, 1.0)
    fitted.save(tmp_path)
    sealed(tmp_path)
    assert np.array_equal(TitleRidge.load(tmp_path).scores(titles), fitted.scores(titles))


def test_titles_without_a_known_word_get_each_labels_mean():
    titles, truth = example(30, 5, 0)
    mean = np.bincount(truth.values, minlength=5) / 30
    scores = TitleRidge.fit(titles, truth, 5, 1.0).scores(["", "zzz"])
    assert scores == pytest.approx(np.tile(mean, (2, 1)), abs=1e-6)
    assert TitleRidge.fit([""] * 30, truth, 5, 1.0).scores(titles[:2]) == pytest.approx(
        np.tile(mean, (2, 1)), abs=1e-6
    )


@pytest.mark.parametrize("n, penalty", [(12, 0.3), (60, 1.0), (60, 10.0)])
def test_conjugate_gradients_give_the_closed_form(n, penalty, monkeypatch):
    titles, truth = example(n, 7, n)
    truth = truth.only(truth.values != 5)  # a label without datapoints
    closed = TitleRidge.fit(titles, truth, 7, penalty)
    monkeypatch.setattr(ridge, "MOST", 10)
    monkeypatch.setattr(ridge, "CELLS", 3 * n)  # three labels at a time
    monkeypatch.setattr(ridge, "_by_kernel", None)
    solved = TitleRidge.fit(titles, truth, 7, penalty)
    assert solved.weights == pytest.approx(closed.weights, abs=1e-6)


def test_gradients_that_do_not_converge_are_refused(monkeypatch):
    monkeypatch.setattr(ridge, "MOST", 10)
    monkeypatch.setattr(ridge, "STEPS", 2)
    titles, truth = example(60, 5, 0)
    with pytest.raises(MufinError, match="set it to a larger penalty"):
        TitleRidge.fit(titles, truth, 5, 1e-9)


def test_weights_too_large_are_refused_with_the_setting(monkeypatch):
    monkeypatch.setattr(ridge, "MOST_BYTES", 10)
    titles, truth = example(11, 5, 0)
    with pytest.raises(MufinError, match="set it to 0.0 and evaluate.ridge_weights"):
        TitleRidge.fit(titles, truth, 5, 1.0)


@pytest.mark.parametrize("cells", [1, 2**26])
def test_scores_of_some_labels_are_those_of_all(cells, monkeypatch):
    titles, truth = example(30, 5, 3)
    fitted = TitleRidge.fit(titles, truth, 5, 1.0)
    monkeypatch.setattr(ridge, "CELLS", cells)
    scores, rng = fitted.scores(titles), np.random.default_rng(0)
    ids = np.stack([rng.permutation(5)[:3] for _ in titles])
    ids[0, 1] = -1
    there = ids >= 0
    wanted = np.take_along_axis(scores, np.maximum(ids, 0), 1)
    assert np.array_equal(fitted.of(titles, ids)[there], wanted[there])
    excluded = Lists.of_rows([[i % 5] for i in range(len(titles))])
    ranked = top(np.broadcast_to(np.arange(5), scores.shape), scores, excluded, 4)
    assert all(map(np.array_equal, fitted.best(titles, excluded, 4), ranked))

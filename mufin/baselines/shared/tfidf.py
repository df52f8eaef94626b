"""Titles as TF-IDF vectors, and the nearest train datapoints or labels by them; no training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mufin.baselines.shared.neighbours import BUDGET, summed_votes
from mufin.baselines.shared.task import Task
from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.ranking.order import best_first, top

if TYPE_CHECKING:
    import scipy.sparse as sp


def title_words(task: Task) -> dict[str, sp.csr_matrix]:
    """TF-IDF of the titles of train, valid and test, (n, V) float64, rows of unit norm or zero.

    Words and idf are those of train. Raises MufinError where no train title has a word.
    """
    import scipy.sparse as sp
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    if not any(map(vectorizer.build_analyzer(), task.titles["train"])):
        raise MufinError(
            f"none of the {len(task.titles['train'])} train datapoints has a word in its title, "
            "and this baseline learns from words alone; leave it out"
        )
    vectorizer.fit(task.titles["train"])
    none = sp.csr_matrix(
        (0, len(vectorizer.vocabulary_))
    )  # scikit-learn refuses to transform nothing
    return {
        name: vectorizer.transform(task.titles[name]) if task.titles[name] else none
        for name in ("train", "valid", "test")
    }


def nearest_datapoints_tfidf(
    train_titles: list[str],
    train_labels: Lists,
    titles: list[str],
    num_labels: int,
    neighbours: int = 20,
    k: int = 100,
    excluded: Lists | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) and scores: the summed similarities of the nearest datapoints with the label.

    -1 and -inf where fewer labels are found; equal similarities go to the earlier datapoint, equal
    scores to the lower id.
    """
    nearest, similarity = _nearest(train_titles, titles, neighbours)
    return summed_votes(nearest, similarity, train_labels, num_labels, k, excluded)


def tfidf_to_labels(
    label_titles: list[str], titles: list[str], k: int = 100, excluded: Lists | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) and scores: the labels whose own titles are nearest by cosine.

    Relations play no part.
    """
    most = int(excluded.lengths().max(initial=0)) if excluded is not None else 0
    labels, similarity = _nearest(label_titles, titles, k + most)
    return top(labels, similarity, excluded, k)


def _nearest(documents: list[str], titles: list[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) the documents that share words with each title, nearest first, and their cosines.

    -1 and -inf where there are fewer.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    index = np.full((len(titles), count), -1, np.int64)
    cosine = np.full((len(titles), count), -np.inf, np.float32)
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    if not any(map(vectorizer.build_analyzer(), documents)):
        return index, cosine
    known = vectorizer.fit_transform(documents).T.tocsr()
    step = max(1, BUDGET // len(documents))
    for start in range(0, len(titles), step):
        dense = (vectorizer.transform(titles[start : start + step]) @ known).toarray()
        dense[dense <= 0] = -np.inf
        order = best_first(dense, np.broadcast_to(np.arange(len(documents)), dense.shape), count)
        best = np.take_along_axis(dense, order, 1)
        rows = slice(start, start + len(dense))
        index[rows, : order.shape[1]] = np.where(best > -np.inf, order, -1)
        cosine[rows, : order.shape[1]] = best
    return index, cosine

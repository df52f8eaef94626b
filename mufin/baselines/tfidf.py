"""What titles alone give, without training: nearest train datapoints, or nearest labels, by TF-IDF."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from mufin.baselines.popular import filled
from mufin.baselines.task import WIDTH, Predict, Task
from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.ranking.order import best_first, top

BUDGET = (
    2**23
)  # similarities (float32) held dense at once: 32 MB, and about five times that while they are sorted
NEIGHBOURS = 20  # train datapoints that vote in the rivals


def tfidf_labels(task: Task, seed: int) -> Predict:
    """The labels whose titles are nearest by TF-IDF, then the most popular; nothing is drawn: `seed` changes nothing."""

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        return filled(
            task,
            split,
            *tfidf_to_labels(
                task.titles["labels"], task.titles[split], WIDTH, task.excluded[split]
            ),
        )

    return predict


def tfidf_datapoints(task: Task, seed: int) -> Predict:
    """The labels of the 20 datapoints with the nearest titles by TF-IDF, then the most popular; `seed` changes nothing."""

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        return filled(
            task,
            split,
            *nearest_datapoints_tfidf(
                task.titles["train"],
                task.truth["train"],
                task.titles[split],
                task.num_labels,
                NEIGHBOURS,
                WIDTH,
                task.excluded[split],
            ),
        )

    return predict


def title_words(task: Task) -> dict[str, sp.csr_matrix]:
    """TF-IDF of the titles of train, valid and test, (n, V) float64, rows of unit norm or zero; words and idf are train's.

    Raises MufinError where no train title has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    if not any(map(vectorizer.build_analyzer(), task.titles["train"])):
        raise MufinError(
            f"none of the {len(task.titles['train'])} train datapoints has a word in its title, and this rival "
            "learns from words alone; leave it out"
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
    """Labels (n, k) and scores: a label's score is the sum of the similarities of the nearest datapoints that have it.

    -1 and -inf where fewer labels are found; equal similarities go to the earlier datapoint, equal scores to the lower id.
    """
    nearest, similarity = _nearest(train_titles, titles, neighbours)
    return summed_votes(nearest, similarity, train_labels, num_labels, k, excluded)


def summed_votes(
    nearest: np.ndarray,
    similarity: np.ndarray,
    train_labels: Lists,
    num_labels: int,
    k: int,
    excluded: Lists | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) and scores: the sums of `similarity` (n, neighbours) over those of `nearest` train datapoints (-1 =
    none) that have the label; -1 and -inf where fewer labels are found."""
    relevance = sp.csr_matrix(
        (np.ones(len(train_labels.values)), train_labels.values, train_labels.offsets),
        (len(train_labels), num_labels),
    )
    labels, scores = (
        np.full((len(nearest), k), -1, np.int64),
        np.full((len(nearest), k), -np.inf, np.float32),
    )
    for start in range(0, len(nearest), 4096):
        rows = np.arange(start, min(start + 4096, len(nearest)))
        ids, votes = _votes(nearest[rows], similarity[rows], relevance)
        mine = excluded.take(rows) if excluded is not None else None
        labels[rows], scores[rows] = top(ids, votes, mine, k)
    return labels, scores


def tfidf_to_labels(
    label_titles: list[str], titles: list[str], k: int = 100, excluded: Lists | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) and scores: the labels whose own titles are nearest, cosine; it knows no relation at all."""
    most = int(np.diff(excluded.offsets).max(initial=0)) if excluded is not None else 0
    labels, similarity = _nearest(label_titles, titles, k + most)
    return top(labels, similarity, excluded, k)


def _nearest(documents: list[str], titles: list[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) the documents that share words with each title, nearest first, and their cosines; -1, -inf for none."""
    index, cosine = (
        np.full((len(titles), count), -1, np.int64),
        np.full((len(titles), count), -np.inf, np.float32),
    )
    from sklearn.feature_extraction.text import TfidfVectorizer

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
        index[rows, : order.shape[1]], cosine[rows, : order.shape[1]] = (
            np.where(best > -np.inf, order, -1),
            best,
        )
    return index, cosine


def _votes(
    nearest: np.ndarray, similarity: np.ndarray, relevance: sp.csr_matrix
) -> tuple[np.ndarray, np.ndarray]:
    """(n, most) labels of the nearest datapoints, -1 padded, and the sums of their similarities."""
    there = nearest >= 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(1))])
    sums = (
        sp.csr_matrix(
            (similarity[there].astype(np.float64), nearest[there], offsets),
            (len(nearest), relevance.shape[0]),
        )
        @ relevance
    )
    length = np.diff(sums.indptr)
    ids = np.full((len(nearest), int(length.max(initial=0))), -1, np.int64)
    votes, place = np.zeros(ids.shape), np.arange(ids.shape[1]) < length[:, None]
    ids[place], votes[place] = sums.indices, sums.data
    return ids, votes

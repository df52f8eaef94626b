"""The labels of the nearest train datapoints by the TF-IDF of their titles."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer

from pipeline.ragged import Lists
from pipeline.ranking import rank


def nearest_datapoints_tfidf(train_titles: list[str], train_labels: Lists, titles: list[str], num_labels: int,
                             neighbours: int = 20, k: int = 100, excluded: Lists | None = None, chunk: int = 1024):
    """Labels (n, k) and scores: a label's score is the sum of the similarities of the nearest datapoints that have it.

    Similarities are a chunk of titles x train at a time; equal similarities go to the earlier datapoint.
    """
    if not any(train_titles):
        return np.full((len(titles), k), -1, np.int64), np.full((len(titles), k), -np.inf, np.float32)
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    train = vectorizer.fit_transform(train_titles)
    relevance = sp.csr_matrix((np.ones(len(train_labels.values)), train_labels.values, train_labels.offsets),
                              (len(train_labels), num_labels))
    labels, scores = [], []
    for start in range(0, len(titles), chunk):
        similarity = (vectorizer.transform(titles[start:start + chunk]) @ train.T).toarray()
        nearest = np.argsort(-similarity, 1, kind="stable")[:, :neighbours]
        weights = np.take_along_axis(similarity, nearest, 1)
        rows = np.repeat(np.arange(len(similarity)), nearest.shape[1])
        vote = sp.csr_matrix((weights.ravel(), (rows, nearest.ravel())), similarity.shape) @ relevance
        got, value = _top(vote.toarray(), k, excluded, start)
        labels.append(got)
        scores.append(value)
    return (np.concatenate([np.zeros((0, k), np.int64), *labels]), np.concatenate([np.zeros((0, k), np.float32), *scores]))


def _top(votes: np.ndarray, k: int, excluded: Lists | None, start: int) -> tuple[np.ndarray, np.ndarray]:
    """The k labels with the most votes, those without any left out."""
    candidates = np.tile(np.arange(votes.shape[1]), (len(votes), 1))
    candidates[votes <= 0] = -1
    mine = excluded.take(np.arange(start, start + len(votes))) if excluded is not None else None
    return rank(candidates, votes, np.zeros(votes.shape), 1.0, mine, width=k)

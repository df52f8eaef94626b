"""Ridge regression from title words to labels: a linear problem, and strong on small catalogs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file

from mufin.artifacts.contents import check
from mufin.artifacts.files import artifact_json
from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.ranking.order import Ranking, top

if TYPE_CHECKING:
    import scipy.sparse as sp
    from sklearn.feature_extraction.text import TfidfVectorizer

MOST = 20_000  # train datapoints: their kernel takes 3.2 GB of float64, twice that for a moment
MOST_BYTES = 2**33  # of the weights (V, L)
TOLERANCE, STEPS = 1e-7, 2000  # of conjugate gradients
CHUNK = 2048  # labels solved at once
CELLS = 2**26  # scores of all labels in memory at once, 256 MB


class TitleRidge:
    """One linear classifier per label on TF-IDF words (sublinear counts, unit norm).

    W = X^T (X X^T + penalty I)^-1 (Y - mean of Y), with TF-IDF rows X of the train titles and their
    0/1 relevance Y. A score is <w_l, x> + mean of y_l, roughly the probability that l is relevant.

    With `index.title_ridge` it is one more term of the final score (not in the paper),
    as the wide part of a wide and deep model. With few datapoints a word that names a series says
    more through a weight of its own than through the D numbers of an embedding.
    """

    def __init__(self, terms: list[str], idf: np.ndarray, weights: np.ndarray, mean: np.ndarray):
        self.terms = terms  # V words
        self.idf = idf  # (V,)
        self.weights = weights  # (V, L) float32
        self.mean = mean  # (L,) float32
        self.vectorizer = _vectorizer(terms)
        if terms:
            self.vectorizer.idf_ = idf

    @classmethod
    def fit(cls, titles: list[str], truth: Lists, num_labels: int, penalty: float) -> TitleRidge:
        """A ridge on the titles (N) and labels of the train datapoints.

        Up to `MOST` datapoints the solution is the closed form, by the kernel of all of them; with
        more it comes from conjugate gradients on the sparse rows. Raises MufinError if the weights
        would take more than `MOST_BYTES`.
        """
        counts, vectorizer = np.bincount(truth.values, minlength=num_labels), _vectorizer(None)
        mean = (counts / max(len(titles), 1)).astype(np.float32)
        if not any(map(vectorizer.build_analyzer(), titles)):
            return cls([], np.zeros(0), np.zeros((0, num_labels), np.float32), mean)
        x = vectorizer.fit_transform(titles)  # (N, V) sparse
        _check_size(x.shape[1], num_labels)
        by_label, chunk = truth.transpose(num_labels), CHUNK
        solve = _by_gradients
        if len(titles) <= MOST:
            solve = _by_kernel
        else:
            chunk = max(1, min(CHUNK, CELLS // len(titles)))
        weights, solved = np.empty((x.shape[1], num_labels), np.float32), solve(x, penalty)
        for start in range(0, num_labels, chunk):
            some = by_label.take(np.arange(start, min(start + chunk, num_labels)))
            relevance = np.zeros((len(titles), len(some)))
            relevance[some.values, some.rows()] = 1
            weights[:, start : start + chunk] = x.T @ solved(relevance - relevance.mean(0))
        return cls(vectorizer.get_feature_names_out().tolist(), vectorizer.idf_, weights, mean)

    def scores(self, titles: list[str]) -> np.ndarray:
        """(n, L) float32; a title without a known word gets the mean of each label."""
        if not self.terms or not titles:
            return np.tile(self.mean, (len(titles), 1))
        return self.vectorizer.transform(titles).astype(np.float32) @ self.weights + self.mean

    def of(self, titles: list[str], ids: np.ndarray) -> np.ndarray:
        """(n, K) float32: the scores of labels `ids` (n, K); those of id -1 are arbitrary."""
        out = np.empty(ids.shape, np.float32)
        for rows, scores in self._chunks(titles):
            out[rows] = np.take_along_axis(scores, np.maximum(ids[rows], 0), 1)
        return out

    def best(self, titles: list[str], excluded: Lists, width: int) -> Ranking:
        """The `width` best of all labels for each title, as `order.top` ranks them."""
        every = np.arange(len(self.mean))
        parts = [
            top(np.broadcast_to(every, scores.shape), scores, excluded.take(rows), width)
            for rows, scores in self._chunks(titles)
        ]
        labels, scores = zip(*parts)
        return np.concatenate(labels), np.concatenate(scores)

    def _chunks(self, titles: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The numbers of some titles and their scores (n, L), until all were there."""
        step = max(1, CELLS // max(len(self.mean), 1))
        for start in range(0, max(len(titles), 1), step):
            some = titles[start : start + step]
            yield np.arange(start, start + len(some)), self.scores(some)

    def save(self, folder: Path) -> None:
        """Writes `ridge.safetensors` and `ridge.json` into `folder`."""
        arrays = {"idf": self.idf, "weights": self.weights, "mean": self.mean}
        contiguous = {n: np.ascontiguousarray(a) for n, a in arrays.items()}
        save_file(contiguous, folder / "ridge.safetensors")
        (folder / "ridge.json").write_text(json.dumps(self.terms))

    @classmethod
    def load(cls, folder: Path) -> TitleRidge:
        """The ridge that was saved in `folder`; raises ArtifactError if it is not as written."""
        path, terms = folder / "ridge.safetensors", artifact_json(folder / "ridge.json")
        check(path)
        arrays = load_file(path)
        return cls(terms, arrays["idf"], arrays["weights"], arrays["mean"])


Solver = Callable[[np.ndarray], np.ndarray]  # (N, m) Y -> (N, m) of (X X^T + penalty I)^-1 Y


def _by_kernel(x: sp.csr_matrix, penalty: float) -> Solver:
    """The closed form. The kernel (N, N) is factorised once for all labels."""
    from scipy.linalg import cho_factor, cho_solve

    kernel = (x @ x.T).toarray()
    kernel[np.diag_indices_from(kernel)] += penalty
    factor = cho_factor(kernel, overwrite_a=True, check_finite=False)
    return lambda y: cho_solve(factor, y, check_finite=False)


def _by_gradients(x: sp.csr_matrix, penalty: float) -> Solver:
    """Conjugate gradients (Hestenes and Stiefel, 1952) for many columns at once.

    They stop where the residual of each column is below TOLERANCE times its right side. Raises
    MufinError if that takes more than STEPS steps.
    """
    of_words = x.T.tocsr()

    def solved(y: np.ndarray) -> np.ndarray:
        out, residual, direction = np.zeros_like(y), y.copy(), y.copy()
        norm = (residual**2).sum(0)  # of each column
        enough, tiny = TOLERANCE**2 * norm, np.finfo(np.float64).tiny
        for _ in range(STEPS):
            if (norm <= enough).all():
                return out
            moved = x @ (of_words @ direction) + penalty * direction
            step = norm / np.maximum((direction * moved).sum(0), tiny)
            out += step * direction
            residual -= step * moved
            before, norm = norm, (residual**2).sum(0)
            direction = residual + norm / np.maximum(before, tiny) * direction
        raise MufinError(
            f"index.title_ridge is {penalty}, and its weights are not found within {STEPS} steps; "
            "set it to a larger penalty"
        )

    return solved


def _check_size(words: int, num_labels: int) -> None:
    size = 4 * words * num_labels
    if size > MOST_BYTES:
        raise MufinError(
            f"index.title_ridge has a weight per word and label: {words} x {num_labels} take "
            f"{size / 1e9:.0f} GB, more than {MOST_BYTES / 1e9:.0f} GB; set it to 0.0 and "
            "evaluate.ridge_weights to [0.0]"
        )


def _vectorizer(terms: list[str] | None) -> TfidfVectorizer:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", vocabulary=terms or None
    )

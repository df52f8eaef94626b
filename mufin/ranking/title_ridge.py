"""Ridge one-vs-all on the words of titles: closed form, the strongest cheap rival on a small catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.linalg import cho_factor, cho_solve

from mufin.errors import MufinError
from mufin.ragged import Lists

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

MOST = 20_000  # train datapoints: there the kernel takes 3.2 GB of float64, its sparse form for a moment as much again
CHUNK = 2048  # labels solved at once


class TitleRidge:
    """One linear classifier a label on TF-IDF words (sublinear counts, unit norm), all solved at once.

    W = X' (X X' + penalty I)^-1 (Y - mean(Y)); a score is <w_l, x> + mean(y_l), about the chance that l is relevant.
    Where `index.title_ridge` is on, it is a term of the final score beside the network's (the wide part of a wide and
    deep model): words that name a series tell more, on few datapoints, through their own weights than through D numbers.
    """

    def __init__(self, terms: list[str], idf: np.ndarray, weights: np.ndarray, mean: np.ndarray):
        self.terms, self.idf, self.weights, self.mean = (
            terms,
            idf,
            weights,
            mean,
        )  # (V,), (V,), (V, L), (L,)
        self.vectorizer = _vectorizer(terms)
        if terms:
            self.vectorizer.idf_ = idf

    @classmethod
    def fit(cls, titles: list[str], truth: Lists, num_labels: int, penalty: float) -> TitleRidge:
        """From the titles (N) and labels of the train datapoints; raises MufinError past `MOST` of them."""
        if len(titles) > MOST:
            raise MufinError(
                f"index.title_ridge needs the kernel of all {len(titles)} train datapoints, more than {MOST}; "
                "set it to 0"
            )
        counts, vectorizer = np.bincount(truth.values, minlength=num_labels), _vectorizer(None)
        mean = (counts / max(len(titles), 1)).astype(np.float32)
        if not any(map(vectorizer.build_analyzer(), titles)):
            return cls([], np.zeros(0), np.zeros((0, num_labels), np.float32), mean)
        x = vectorizer.fit_transform(titles)
        kernel = (x @ x.T).toarray()
        kernel[np.diag_indices_from(kernel)] += penalty
        factor, by_label = (
            cho_factor(kernel, overwrite_a=True, check_finite=False),
            truth.transpose(num_labels),
        )
        weights = np.empty((x.shape[1], num_labels), np.float32)
        for start in range(0, num_labels, CHUNK):
            some = by_label.take(np.arange(start, min(start + CHUNK, num_labels)))
            relevance = np.zeros((len(titles), len(some)))
            relevance[some.values, some.rows()] = 1
            weights[:, start : start + CHUNK] = x.T @ cho_solve(
                factor, relevance - relevance.mean(0), check_finite=False
            )
        return cls(vectorizer.get_feature_names_out().tolist(), vectorizer.idf_, weights, mean)

    def scores(self, titles: list[str]) -> np.ndarray:
        """(n, L) float32; a title without a known word gets each label's mean."""
        if not self.terms or not titles:
            return np.tile(self.mean, (len(titles), 1))
        return self.vectorizer.transform(titles).astype(np.float32) @ self.weights + self.mean

    def save(self, folder: Path) -> None:
        """`ridge.safetensors` and `ridge.json` in `folder`."""
        arrays = {"idf": self.idf, "weights": self.weights, "mean": self.mean}
        save_file(
            {n: np.ascontiguousarray(a) for n, a in arrays.items()}, folder / "ridge.safetensors"
        )
        (folder / "ridge.json").write_text(json.dumps(self.terms))

    @classmethod
    def load(cls, folder: Path) -> TitleRidge | None:
        """What `save` left in `folder`; None where it left nothing."""
        if not (folder / "ridge.json").exists():
            return None
        arrays = load_file(folder / "ridge.safetensors")
        return cls(
            json.loads((folder / "ridge.json").read_text()),
            arrays["idf"],
            arrays["weights"],
            arrays["mean"],
        )


def _vectorizer(terms: list[str] | None) -> TfidfVectorizer:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", vocabulary=terms or None
    )

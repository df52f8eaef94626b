"""The classifiers w_l: do labels of one category lie together (MUFIN Fig. 6)?"""

from __future__ import annotations

import numpy as np

CHUNK = 1024  # labels compared with all others at once


def same_category(w: np.ndarray, category: np.ndarray, k: int = 10) -> tuple[float, float] | None:
    """The share of a label's k nearest labels that have its category, and by chance, in percent.

    Nearest by cosine. `w` (L, D), `category` (L,) str; labels without one ('') are left out. None
    where there are fewer than two categories or k + 1 labels.
    """
    known = category.astype(str) != ""
    own = category[known].astype(str)
    names, code, counts = np.unique(own, return_inverse=True, return_counts=True)
    w = w[known]
    if len(names) < 2 or len(w) <= k:
        return None
    unit = w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-12)
    same = 0
    for start in range(0, len(unit), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(unit)))
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        same += int((code[nearest] == code[rows][:, None]).sum())
    chance = (counts * (counts - 1)).sum() / (len(w) * (len(w) - 1))
    return 100 * same / (len(w) * k), 100 * float(chance)


def tsne(w: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """(n, 2) float: t-SNE of the classifiers (n, D) at unit norm; None for fewer than 5."""
    if len(w) < 5:
        return None
    from sklearn.manifold import TSNE

    unit = w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-12)
    return TSNE(
        2, perplexity=min(30.0, (len(w) - 1) / 3), init="pca", random_state=seed
    ).fit_transform(unit)

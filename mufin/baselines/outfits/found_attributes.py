"""Attributes of items from what every catalog has: type, colour of the picture, topic of the title.

Stands in for the annotated attributes (Shopping100k, DeepFashion) that ADDE learns from, since
outfits come without any.
"""

from __future__ import annotations

import numpy as np

from mufin.baselines.outfits.items import Items

LEVELS = 3  # per channel of a colour
TOPICS, TOPIC_DIM = 16, 32


def attributes(items: Items, rows: np.ndarray, seed: int) -> tuple[np.ndarray, list[int]]:
    """(N, 3) int64 values of type, colour and topic, -1 outside of `rows`; the numbers of values.

    `rows` (n,) int64 are the items of train. A colour is the mean of the pixels that are not white,
    at `LEVELS` levels per channel; a topic is a cluster of title features.
    """
    out = np.full((len(items), 3), -1, np.int64)
    out[rows, 0] = items.types[rows]
    out[rows, 1] = colours(items.pixels[rows])
    out[rows, 2] = topics(items, rows, seed)
    return out, [items.num_types, LEVELS**3, max(1, int(out[:, 2].max(initial=0)) + 1)]


def colours(pixels: np.ndarray) -> np.ndarray:
    """(n,) int64 in [0, LEVELS^3) of pictures (n, S, S, 3) uint8; white where all is white."""
    out = np.empty((len(pixels), 3), np.float32)
    for i, picture in enumerate(pixels):
        shown = (picture < 255).any(2)
        out[i] = picture[shown].mean(0) if shown.any() else 255
    levels = np.minimum((out * LEVELS / 256).astype(np.int64), LEVELS - 1)
    return levels @ (LEVELS ** np.arange(3))


def topics(items: Items, rows: np.ndarray, seed: int) -> np.ndarray:
    """(n,) int64 clusters of the titles of `rows`, after the mean of each type is taken away.

    Without that the clusters would be the types. All 0 where the titles have too few words.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD

    words, types = items.words[rows], items.types[rows]
    dim = min(TOPIC_DIM, min(words.shape) - 1)
    if dim < 2 or len(rows) < TOPICS or words.nnz == 0:
        return np.zeros(len(rows), np.int64)
    x = TruncatedSVD(dim, random_state=seed).fit_transform(words)
    for kind in np.unique(types):
        x[types == kind] -= x[types == kind].mean(0)
    clusters = KMeans(TOPICS, n_init=3, random_state=seed).fit_predict(x)
    return clusters.astype(np.int64)

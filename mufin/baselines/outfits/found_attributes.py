"""Attributes of items from what every catalog has: colour of the picture, topic of the title.

Stands in for the annotated attributes (Shopping100k, DeepFashion) that ADDE learns from, since
outfits come without any.
"""

from __future__ import annotations

import numpy as np

from mufin.baselines.outfits.items import Items

LEVELS = 4  # per channel of a colour
TOPICS, TOPIC_DIM = 16, 32
CHUNK = 1024  # pictures at once


def attributes(items: Items, rows: np.ndarray, seed: int) -> tuple[np.ndarray, list[int]]:
    """(N, 2) int64 values of colour and topic, -1 outside of `rows`; the numbers of values.

    `rows` (n,) int64 are the items of train. Values are numbered from 0, and all of them occur.
    """
    out = np.full((len(items), 2), -1, np.int64)
    counts = []
    for column, codes in enumerate((colours_of(items, rows), topics(items, rows, seed))):
        distinct, out[rows, column] = np.unique(codes, return_inverse=True)
        counts.append(len(distinct))
    return out, counts


def colours_of(items: Items, rows: np.ndarray) -> np.ndarray:
    """(n,) int64 `colours` of the items `rows`, in parts that need little memory."""
    parts = [colours(items.pixels[rows[i : i + CHUNK]]) for i in range(0, len(rows), CHUNK)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def colours(pixels: np.ndarray) -> np.ndarray:
    """(n,) int64 in [0, LEVELS^3): the most frequent colour in the middle of each picture.

    Of `pixels` (n, S, S, 3) uint8, without white, at `LEVELS` levels per channel; the middle is
    half as wide and high as the picture. The last colour, white, where there is no other.
    """
    n, side = len(pixels), pixels.shape[1]
    middle = pixels[:, side // 4 : side - side // 4, side // 4 : side - side // 4].reshape(n, -1, 3)
    levels = middle.astype(np.int64) * LEVELS // 256
    codes = levels @ (LEVELS ** np.arange(3))  # (n, pixels)
    counts = np.zeros((n, LEVELS**3), np.int64)
    np.add.at(counts, (np.arange(n)[:, None], codes), 1)
    any_other = counts[:, :-1].any(1)
    return np.where(any_other, counts[:, :-1].argmax(1), LEVELS**3 - 1)


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

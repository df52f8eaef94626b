"""What all rivals are told of an item: one picture, features of its title, and its type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

MOST_WORDS = 2048


@dataclass(frozen=True, slots=True)
class Items:
    """N items; the row number is that of `products.parquet`."""

    pixels: np.ndarray  # (N, S, S, 3) uint8, RGB; white where an item has no picture
    words: csr_matrix  # (N, W) float32, unit norm; an empty row where the title has no known word
    types: np.ndarray  # (N,) int64 in [0, num_types), such as tops or shoes
    num_types: int
    used: np.ndarray  # (n,) int64, the rows that outfits, questions and answers name

    def __len__(self) -> int:
        return len(self.types)


def title_words(titles: list[str], known: np.ndarray) -> csr_matrix:
    """(N, W) float32 TF-IDF of the words of N titles, with rows of unit norm.

    Words and weights come from the titles of the rows `known`, (n,) int64: those of train. The
    publications embed titles by pretrained word vectors, which are not available.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        token_pattern=r"(?u)\b\w+\b", max_features=MOST_WORDS, sublinear_tf=True, dtype=np.float32
    )
    try:
        words.fit([titles[row] for row in known])
    except ValueError:  # no title has a word
        return csr_matrix((len(titles), 1), dtype=np.float32)
    return words.transform(titles).tocsr()

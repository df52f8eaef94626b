"""Titles as TF-IDF-weighted bags of learnt word vectors, as in SiameseXML and ECLARE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mufin.ragged import Lists, offsets_of

if TYPE_CHECKING:
    import scipy.sparse as sp


@dataclass(frozen=True, slots=True)
class Bags:
    """Row i of `terms` holds the words (and n-grams) of title i.

    `weights` (nnz,) float32 their TF-IDF, of unit norm.
    """

    terms: Lists
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.terms)

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The input of `nn.EmbeddingBag` for titles `rows`.

        Term ids (nnz,), offsets (n,), weights (nnz,).
        """
        positions, offsets = self.terms.positions(rows)
        arrays = self.terms.values[positions], offsets[:-1], self.weights[positions]
        ids, starts, weights = (torch.from_numpy(a).to(device) for a in arrays)
        return ids, starts, weights

    def matrix(self, num_terms: int) -> sp.csr_matrix:
        """(n, num_terms): the weights."""
        import scipy.sparse as sp

        return sp.csr_matrix(
            (self.weights, self.terms.values, self.terms.offsets), (len(self), num_terms)
        )


def title_bags(
    titles: dict[str, list[str]], ngrams: int, min_count: int
) -> tuple[dict[str, Bags], int]:
    """The bags of each list of titles, and the number of terms.

    Terms are those in at least `min_count` titles of train and labels. The last term stands for a
    title without a known word, so that such a title has a learnt vector too.
    """
    import scipy.sparse as sp
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        sublinear_tf=True,
        token_pattern=r"(?u)\b\w+\b",
        ngram_range=(1, ngrams),
        min_df=min_count,
        dtype=np.float32,
    )
    try:
        vectorizer.fit(titles["train"] + titles["labels"])
    except ValueError:  # scikit-learn raises it where no term is left
        return {
            name: bags_of(sp.csr_matrix((len(some), 0), dtype=np.float32))
            for name, some in titles.items()
        }, 1
    size = len(vectorizer.vocabulary_)
    empty = sp.csr_matrix((0, size), dtype=np.float32)
    return {
        name: bags_of(vectorizer.transform(some) if some else empty)
        for name, some in titles.items()
    }, size + 1


def bags_of(matrix: sp.csr_matrix) -> Bags:
    """The rows of `matrix` (n, V) of TF-IDF; an empty row gets the term V with weight 1."""
    lengths = np.diff(matrix.indptr)
    offsets = offsets_of(np.maximum(lengths, 1))
    ids, weights = np.full(offsets[-1], matrix.shape[1], np.int64), np.ones(offsets[-1], np.float32)
    there = np.repeat(lengths > 0, np.maximum(lengths, 1))
    ids[there], weights[there] = matrix.indices, matrix.data
    return Bags(Lists(offsets, ids), weights)


class WordBag(nn.Module):
    """x -> E x: the TF-IDF-weighted sum of learnt word vectors, with sparse gradients."""

    def __init__(self, num_terms: int, dim: int):
        super().__init__()
        self.words = nn.EmbeddingBag(num_terms, dim, mode="sum", sparse=True)
        nn.init.normal_(self.words.weight, std=dim**-0.5)

    def forward(self, bags: Bags, rows: np.ndarray) -> Tensor:
        """(n, dim) of titles `rows`."""
        ids, offsets, weights = bags.batch(rows, self.words.weight.device)
        return self.words(ids, offsets, weights)

    @torch.no_grad()
    def all(self, bags: Bags, chunk: int = 8192) -> Tensor:
        """(n, dim) of all titles."""
        parts = [
            self(bags, np.arange(s, min(s + chunk, len(bags)))) for s in range(0, len(bags), chunk)
        ]
        return (
            torch.cat(parts) if parts else self.words.weight.new_zeros(0, self.words.embedding_dim)
        )


class Residual(nn.Module):
    """v + dropout(ReLU(R v)), R starts as the identity (Astec's residual block)."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.layer, self.dropout = nn.Linear(dim, dim), nn.Dropout(dropout)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, v: Tensor) -> Tensor:
        return v + self.dropout(torch.relu(self.layer(v)))

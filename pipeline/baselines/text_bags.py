"""Titles as TF-IDF-weighted bags of words, and the encoder that SiameseXML and ECLARE share (Dahiya et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

from pipeline.ragged import Lists


@dataclass(frozen=True, slots=True)
class Bags:
    """Row i of `terms` are the words (and word n-grams) of title i, `weights` (nnz,) float32 their TF-IDF, unit norm a row."""

    terms: Lists
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.terms)

    def batch(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """What `nn.EmbeddingBag` takes for titles `rows`: term ids (nnz,), offsets (n,), weights (nnz,)."""
        positions, offsets = self.terms.positions(rows)
        arrays = self.terms.values[positions], offsets[:-1], self.weights[positions]
        return tuple(torch.from_numpy(a).to(device) for a in arrays)


def title_bags(titles: dict[str, list[str]], ngrams: int, min_count: int) -> tuple[dict[str, Bags], int]:
    """The bags of each list of titles, and the number of terms: those in `min_count` titles of train and labels.

    The last term stands for a title without a known word, so that this too has a vector that learns.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", ngram_range=(1, ngrams), min_df=min_count,
                                 dtype=np.float32)
    known = titles["train"] + titles["labels"]
    try:
        vectorizer.fit(known)
    except ValueError:          # scikit-learn's word for: no term is left
        return {name: _bags(None, len(some), 0) for name, some in titles.items()}, 1
    size = len(vectorizer.vocabulary_)
    return {name: _bags(vectorizer.transform(some) if some else None, len(some), size) for name, some in titles.items()}, size + 1


def _bags(matrix, n: int, no_words: int) -> Bags:
    lengths = np.diff(matrix.indptr) if matrix is not None else np.zeros(n, np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths, 1))]).astype(np.int64)
    ids, weights = np.full(offsets[-1], no_words, np.int64), np.ones(offsets[-1], np.float32)
    if matrix is not None:
        there = np.repeat(lengths > 0, np.maximum(lengths, 1))
        ids[there], weights[there] = matrix.indices, matrix.data
    return Bags(Lists(offsets, ids), weights)


class BagEncoder(nn.Module):
    """x -> ReLU(E x), dropout: the sum of learnt word vectors by TF-IDF (Astec's and SiameseXML's text encoder)."""

    def __init__(self, num_terms: int, dim: int, dropout: float):
        super().__init__()
        self.words = nn.EmbeddingBag(num_terms, dim, mode="sum", sparse=True)
        nn.init.normal_(self.words.weight, std=dim ** -0.5)
        self.dropout = nn.Dropout(dropout)

    def forward(self, bags: Bags, rows: np.ndarray) -> Tensor:
        """(n, dim) of titles `rows`; each word's gradient is sparse."""
        ids, offsets, weights = bags.batch(rows, self.words.weight.device)
        return self.dropout(torch.relu(self.words(ids, offsets, weights)))

    @torch.no_grad()
    def all(self, bags: Bags, chunk: int = 8192) -> Tensor:
        """(n, dim) of all titles, without dropout; leaves the encoder in evaluation mode."""
        self.eval()
        starts = range(0, len(bags), chunk)
        parts = [self(bags, np.arange(s, min(s + chunk, len(bags)))) for s in starts]
        return torch.cat(parts) if parts else self.words.weight.new_zeros(0, self.words.embedding_dim)


class Residual(nn.Module):
    """v + dropout(ReLU(R v)), R starts as the identity (Astec's residual block)."""

    def __init__(self, dim: int, dropout: float):
        super().__init__()
        self.layer, self.dropout = nn.Linear(dim, dim), nn.Dropout(dropout)
        nn.init.eye_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, v: Tensor) -> Tensor:
        return v + self.dropout(torch.relu(self.layer(v)))

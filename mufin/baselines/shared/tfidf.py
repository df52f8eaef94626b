"""Titles as TF-IDF vectors, and the nearest train datapoints or labels by them; no training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mufin.baselines.shared.neighbours import summed_votes
from mufin.baselines.shared.task import Task
from mufin.errors import MufinError
from mufin.ragged import Lists
from mufin.ranking.order import top

if TYPE_CHECKING:
    import scipy.sparse as sp

BUDGET = 2**24  # multiplications per sparse product, whose result takes at most 130 MB
PAIRS = 2**20  # pairs compared in full at once
SHARES = (0.003, 0.02, 0.1)  # a word is rare if at most this share of documents has it
ROUNDING = 1e-5  # more than rounding can change an inner product of unit vectors


def title_words(task: Task) -> dict[str, sp.csr_matrix]:
    """TF-IDF of the titles of train, valid and test, (n, V) float64, rows of unit norm or zero.

    Words and idf are those of train. Raises MufinError where no train title has a word.
    """
    import scipy.sparse as sp
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    if not any(map(vectorizer.build_analyzer(), task.titles["train"])):
        raise MufinError(
            f"none of the {len(task.titles['train'])} train datapoints has a word in its title, "
            "and this baseline learns from words alone; leave it out"
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
    """Labels (n, k) and scores: the summed similarities of the nearest datapoints with the label.

    -1 and -inf where fewer labels are found; equal similarities go to the earlier datapoint, equal
    scores to the lower id.
    """
    nearest, similarity = _nearest(train_titles, titles, neighbours)
    return summed_votes(nearest, similarity, train_labels, num_labels, k, excluded)


def tfidf_to_labels(
    label_titles: list[str], titles: list[str], k: int = 100, excluded: Lists | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, k) and scores: the labels whose own titles are nearest by cosine.

    Relations play no part.
    """
    most = int(excluded.lengths().max(initial=0)) if excluded is not None else 0
    labels, similarity = _nearest(label_titles, titles, k + most)
    return top(labels, similarity, excluded, k)


def _nearest(documents: list[str], titles: list[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) the documents that share words with each title, nearest first, and their cosines.

    -1 and -inf where there are fewer.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    if not titles or not any(map(vectorizer.build_analyzer(), documents)):
        index = np.full((len(titles), count), -1, np.int64)
        return index, np.full(index.shape, -np.inf, np.float32)
    known = vectorizer.fit_transform(documents)
    return nearest_sparse(known, vectorizer.transform(titles), count)


def nearest_sparse(
    known: sp.csr_matrix, asked: sp.csr_matrix, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n, count) the rows of `known` with the largest positive inner products, and these.

    `known` (N, V) and `asked` (n, V) float32 have no negative entries, and rows of norm 1 or 0.
    Equal products go to the earlier row; -1 and -inf fill rows with fewer.

    The result is exact, without most of the work that words in many documents make. A row is first
    compared by its rare words only. What common words can add to the product of q and d is at most
    |q_c| |d_c|, the norms of their common parts (Cauchy-Schwarz). If the count-th best product of
    rare words is above that, documents without a rare word in common are out, and few others are
    left to compare in full. A row that this does not decide goes on with more words, at last with
    all of them. In a sum of words the order is that of the columns, so it has the same bits
    whatever was left out before.
    """
    known, asked = known.sorted_indices(), asked.sorted_indices()
    index = np.full((asked.shape[0], count), -1, np.int64)
    product = np.full(index.shape, -np.inf, np.float32)
    spread, rest = np.bincount(known.indices, minlength=known.shape[1]), np.arange(len(index))
    for share in (*SHARES, 1.0):
        rare = spread <= share * known.shape[0]
        part, of_rare = _only(known, rare).T.tocsr(), _only(asked, rare)
        of_documents, of_asked = _norms(known, ~rare), _norms(asked, ~rare)
        open_rows = []
        for rows in _chunks(rest, of_rare, spread):
            partial = of_rare[rows] @ part
            places, columns = _contenders(partial, of_asked[rows], of_documents, count)
            decided = np.ones(len(rows), bool)
            if share < 1:
                decided[:] = False
                decided[places] = True
            values = _products(asked, known, rows[places], columns)
            _fill(index, product, rows[places], columns, values)
            open_rows.append(rows[~decided])
        rest = np.concatenate([rest[:0], *open_rows])
    return index, product


def _only(matrix: sp.csr_matrix, columns: np.ndarray) -> sp.csr_matrix:
    """The matrix with zeros in all but `columns` (V,) bool."""
    import scipy.sparse as sp

    keep = columns[matrix.indices]
    ends = np.append(0, np.cumsum(keep))[matrix.indptr]
    return sp.csr_matrix((matrix.data[keep], matrix.indices[keep], ends), matrix.shape)


def _norms(matrix: sp.csr_matrix, columns: np.ndarray) -> np.ndarray:
    """(n,) float64 norms of the rows in `columns` (V,) bool."""
    squared = _only(matrix, columns).astype(np.float64)
    squared.data **= 2
    return np.sqrt(squared @ np.ones(matrix.shape[1]))


def _chunks(rows: np.ndarray, asked: sp.csr_matrix, spread: np.ndarray) -> list[np.ndarray]:
    """`rows` in chunks whose products take about BUDGET multiplications."""
    words = asked.copy()
    words.data = np.ones(len(words.data))
    made = np.cumsum((words @ spread.astype(np.float64))[rows])
    return np.split(rows, np.flatnonzero(np.diff(made // BUDGET)) + 1) if len(rows) else []


def _contenders(
    partial: sp.csr_matrix, of_asked: np.ndarray, of_documents: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """(row, document) pairs that may be among the `count` best of the rows that are decided.

    `partial` (n, N) are the products of rare words, `of_asked` (n,) and `of_documents` (N,) the
    norms of the common parts.
    """
    most, rows, columns = of_documents.max(initial=0), [], []
    for row in range(partial.shape[0]):
        at = slice(partial.indptr[row], partial.indptr[row + 1])
        values, documents, norm = partial.data[at], partial.indices[at], of_asked[row]
        edge = -np.inf
        if len(values) > count:
            edge = np.partition(values, len(values) - count)[len(values) - count] - ROUNDING
        if norm * most > 0:
            if len(values) < count or edge <= norm * most:
                continue  # a document without a rare word in common may be among the best
            documents = documents[values + norm * of_documents[documents] >= edge]
        elif len(values) > count:
            documents = documents[values >= edge]
        rows.append(np.full(len(documents), row))
        columns.append(documents)
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *rows]), np.concatenate([none, *columns])


def _products(
    asked: sp.csr_matrix, known: sp.csr_matrix, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """(M,) float32 inner products of `rows` (M,) of `asked` and `columns` (M,) of `known`."""
    out = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), PAIRS):
        at = slice(start, start + PAIRS)
        shared = asked[rows[at]].multiply(known[columns[at]]).tocsr()
        out[at] = shared @ np.ones(known.shape[1], np.float32)
    return out


def _fill(
    index: np.ndarray,
    product: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
) -> None:
    """Writes the best columns of each of `rows` (M,) into `index`, and `values` into `product`."""
    there = values > 0
    rows, columns, values = rows[there], columns[there], values[there]
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    place = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
    best = place < index.shape[1]
    index[rows[best], place[best]] = columns[best]
    product[rows[best], place[best]] = values[best]

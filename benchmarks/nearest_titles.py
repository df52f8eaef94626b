"""The TF-IDF row of evaluate: nearest train titles by rare words first, and by whole products.

python -m benchmarks.nearest_titles --train 100000 --asked 500

Titles are drawn: words with frequencies as in a language (Zipf), half of a title's words from the
topic of its product.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.timing import interleaved, tell
from mufin.baselines.shared.tfidf import nearest_sparse

COUNT = 20  # nearest titles per title
WORDS, LENGTH = 50_000, 10  # of the language, of a title
TOPIC = 40  # titles per topic


def main(
    train: int = 100_000,
    asked: int = 500,
    repeats: int = 3,
    out: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Nanoseconds per pair of a train title and a title that is asked about."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    rng = np.random.default_rng(0)
    titles = _titles(rng, train + asked)
    known = vectorizer.fit_transform(titles[:train])
    queries = vectorizer.transform(titles[train:])
    ours = nearest_sparse(known, queries, COUNT)[1]
    assert np.allclose(ours, _whole(known, queries), atol=1e-5)
    ways = {
        "rare words first": lambda: nearest_sparse(known, queries, COUNT),
        "whole sparse products": lambda: _whole(known, queries),
    }
    seconds = interleaved(ways, repeats)
    rows = {
        name: {"ns_per_pair": 1e9 * float(np.median(took)) / (train * asked)}
        for name, took in seconds.items()
    }
    tell(f"{COUNT} nearest of {train} train titles, for {asked} titles", rows, out)


def _titles(rng: np.random.Generator, count: int) -> list[str]:
    """Titles in random order of topics, each of which has words of its own."""
    chance = 1 / np.arange(1, WORDS + 1)
    chance /= chance.sum()
    topics = rng.choice(WORDS, (count // TOPIC + 1, LENGTH), p=chance)
    topic = rng.integers(len(topics), size=count)
    half = LENGTH // 2
    own = rng.permuted(topics, axis=1)[topic][:, :half]
    other = rng.choice(WORDS, (count, LENGTH - half), p=chance)
    return [" ".join(f"w{word}" for word in row) for row in np.hstack([own, other])]


def _whole(known, queries) -> np.ndarray:  # noqa: ANN001
    """(n, COUNT) the largest products, best first, of each row of the whole product."""
    product = queries @ known.T
    best = np.full((queries.shape[0], COUNT), -np.inf, np.float32)
    for row in range(len(best)):
        values = product.data[product.indptr[row] : product.indptr[row + 1]]
        values = -np.sort(-values)[:COUNT]
        best[row, : len(values)] = values
    return best


if __name__ == "__main__":
    typer.run(main)

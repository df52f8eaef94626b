"""The scores of the candidates of a split, held where they are few, else made block by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from mufin.artifacts.curated import Split
from mufin.ranking.mix import Candidates
from mufin.ranking.predictor import Predictor

T = TypeVar("T")
CELLS = 2**26  # candidates held at once; with their scores they take up to 32 bytes each


@dataclass(frozen=True)
class Block:
    """Some datapoints of a split, and the scores of their candidates."""

    split: Split
    candidates: Candidates
    alpha_one_of: Callable[[], np.ndarray]

    @cached_property
    def alpha_one(self) -> np.ndarray:
        """(n, K) scores of the candidates by w = z^1 (Table 4, alpha = 1, at prediction)."""
        return self.alpha_one_of()


class Scored:
    """A split and the scores of its candidates, `per_block` datapoints at a time.

    If that is all of them, the scores are computed once and held. Else each pass over the blocks
    computes them again: `evaluate.candidates: all` has n x L scores, which may be terabytes.
    """

    def __init__(
        self,
        split: Split,
        make: Callable[[np.ndarray], Block],
        per_block: int,
        terms: frozenset[str] = frozenset(),
        without_descriptor: int = 0,
    ):
        self.without_descriptor = without_descriptor  # datapoints, which have no candidates
        self.split, self.terms = split, terms  # terms: of ridge, votes and pairs, those there are
        self.per_block = max(per_block, 1)
        self.seconds, self.made = 0.0, 0  # the time of `make`, and for how many datapoints
        self._make = make

    @property
    def held(self) -> bool:
        """Whether the scores of all datapoints are in memory."""
        return len(self.split) <= self.per_block

    def starts(self) -> range:
        """The first datapoint of each block; one block if there are no datapoints."""
        return range(0, max(len(self.split), 1), self.per_block)

    def blocks(self) -> Iterator[tuple[np.ndarray, Block]]:
        """The numbers of the datapoints of each block, and the block."""
        for start in self.starts():
            rows = np.arange(start, min(start + self.per_block, len(self.split)))
            yield rows, self._whole if self.held else self._timed(rows)

    def features(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidates (n, K) and their c, c1 and a (3, n, K) of the datapoints `rows` (n,)."""
        block, at = (self._whole, rows) if self.held else (self._timed(rows), np.arange(len(rows)))
        c = block.candidates
        scores = [values[at] for values in (c.classifier, block.alpha_one, c.similarity)]
        return c.ids[at], np.stack(scores)

    @cached_property
    def _whole(self) -> Block:
        return self._timed(np.arange(len(self.split)))

    def _timed(self, rows: np.ndarray) -> Block:
        start = time.perf_counter()
        block = self._make(rows)
        self.seconds += time.perf_counter() - start
        self.made += len(rows)
        return block


def scored(predictor: Predictor, split: Split, titles: np.ndarray, k: int) -> Scored:
    """The k nearest labels of the datapoints of `split` with all their scores.

    `titles` (P,) are those of all products. A datapoint without a descriptor has no candidates.
    """
    embedded = predictor.embed(split.product)

    def make(rows: np.ndarray) -> Block:
        some, x = split.take(rows), [e.take(rows) for e in embedded]
        asked = titles[some.product].tolist()
        candidates = predictor.candidates(x, k, some.excluded, asked, some.product)
        candidates = candidates.only(x[0].sizes > 0)
        return Block(some, candidates, lambda: predictor.score(x, candidates.ids, alpha_one=True))

    pairs, index = predictor.pairs, predictor.index
    there = {
        "ridge": index.ridge is not None,
        "votes": index.votes is not None,
        "pairs": pairs is not None and bool(pairs.known(split.product).any()),
    }
    terms = frozenset(name for name, is_there in there.items() if is_there)
    per_block = CELLS // max(min(k, len(index)), 1)
    return Scored(split, make, per_block, terms, int((embedded[0].sizes == 0).sum()))


def in_blocks(
    scores: Scored, jobs: Mapping[T, Callable[[np.ndarray, Block], tuple[np.ndarray, ...]]]
) -> Iterator[tuple[T, tuple[np.ndarray, ...]]]:
    """What each job returns for all datapoints: arrays with a row per datapoint, joined.

    A job gets the numbers of some datapoints and their block. Held scores serve one job after the
    other, so that only one result is in memory; else all jobs share one pass over the blocks.
    """
    if scores.held:
        for name, job in jobs.items():
            yield name, job(*next(scores.blocks()))
        return
    parts: dict[T, list[tuple[np.ndarray, ...]]] = {name: [] for name in jobs}
    for rows, block in scores.blocks():
        for name, job in jobs.items():
            parts[name].append(job(rows, block))
    for name in jobs:
        yield name, tuple(np.concatenate(several) for several in zip(*parts.pop(name)))

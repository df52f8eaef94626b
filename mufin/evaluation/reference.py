"""Reference rows, which need no network: popular labels, nearest titles, title ridge, old pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from mufin import process_group
from mufin.artifacts.curated import Curated, Split
from mufin.baselines.shared.popularity import popular
from mufin.baselines.shared.tfidf import nearest_datapoints_tfidf
from mufin.evaluation.breakdowns import repeated_pairs
from mufin.ragged import Lists, is_in
from mufin.ranking.order import Ranking, top
from mufin.ranking.title_ridge import TitleRidge

NEIGHBOURS = 20  # train datapoints with the nearest titles, whose labels are predicted


def reference_rows(
    train: Split,
    split: Split,
    titles: np.ndarray,
    num_labels: int,
    ridge: TitleRidge | None,
    width: int,
    device: torch.device,
    tfidf: bool = True,
) -> Iterator[tuple[str, Ranking]]:
    """Each row and the ranking of the datapoints of `split`, of which each process makes its share.

    `titles` (P,) str are those of all products, and `device` is that of this process. The row of
    TF-IDF, whose cost grows with the product of both numbers of datapoints, comes with `tfidf`.
    """
    asked, known = titles[split.product].tolist(), titles[train.product].tolist()
    yield "popular", popular(train.labels, num_labels, len(split), width, split.excluded)

    def nearest(rows: slice) -> Ranking:
        excluded = split.excluded.take(every[rows])
        return nearest_datapoints_tfidf(
            known, train.labels, asked[rows], num_labels, NEIGHBOURS, width, excluded
        )

    every = np.arange(len(split))
    if tfidf:
        labels, scores = process_group.in_shares(len(split), nearest, device)
        yield "tfidf_datapoints", (labels, scores)
    if ridge is not None:
        labels, scores = process_group.in_shares(
            len(split),
            lambda rows: ridge.best(asked[rows], split.excluded.take(every[rows]), width),
            device,
        )
        yield "ridge", (labels, scores)


def train_pairs_row(data: Curated, name: str, width: int) -> Ranking:
    """The labels that each product of a split has in train, then the most popular ones.

    Strong pairs come first. It is what a list of products that were bought together answers, and
    the row to beat for known products of a split by time. A product that is no train datapoint gets
    the most popular labels.
    """
    train, split, num_labels = data.train, data.splits[name], len(data.labels)
    found = repeated_pairs(split.product, data).padded()
    weights = np.ones(len(train.labels.values)) if train.weights is None else train.weights
    strength = Split(train.product, Lists(train.labels.offsets, weights), train.excluded)
    own = Curated(data.labels, {"train": strength})
    scores = 1 + repeated_pairs(split.product, own).padded().clip(0)
    more = int(split.excluded.lengths().max(initial=0)) + found.shape[1]
    best, frequency = popular(train.labels, num_labels, 1, width + more)
    rest = np.repeat(best, len(split), 0)
    rest[is_in(rest, Lists.of_padded(found))] = -1
    below = np.broadcast_to(frequency / (frequency.max(initial=0) + 1), rest.shape)  # below 1
    ids, score = np.concatenate([found, rest], 1), np.concatenate([scores, below], 1)
    return top(ids, score, split.excluded, width)

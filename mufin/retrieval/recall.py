"""How many of the nearest labels an approximate search finds, measured against exact search."""

from __future__ import annotations

import sys

import numpy as np
import torch

from mufin.retrieval.exact import ExactNeighbours, LabelRows
from mufin.retrieval.hnsw import HnswNeighbours

SAMPLE = 300  # queries; two samples differ by about half a point
PART = 2**18  # rows that exact search copies at a time, 128 MB at 128 dimensions
WEAK = 90.0  # percent; the usual settings find over 95
ROUNDING = 1e-5  # by which the similarities of the two searches may differ for one row


def search_recall(
    search: ExactNeighbours | HnswNeighbours,
    queries: np.ndarray,
    k: int,
    seed: int,
    device: torch.device,
) -> float | None:
    """The percentage of the k nearest labels that `search` finds; None for exact search.

    It is the mean over a sample of the `queries` (n, D), the same for the same seed. A label that
    is found counts if it is as near as the k-th of exact search, so equally near labels are no
    loss. `device` is that of exact search.
    """
    if isinstance(search, ExactNeighbours) or not len(queries):
        return None
    chosen = np.random.default_rng(seed).permutation(len(queries))[:SAMPLE]
    sample = queries[np.sort(chosen)]
    best = _best(search.source, sample, k, device)
    _, found = search.search(sample, k)
    wanted = np.isfinite(best)  # of fewer than k labels that have rows
    edge = np.where(wanted, best, np.inf).min(1, initial=np.inf, keepdims=True)
    hits = ((found >= edge - ROUNDING) & np.isfinite(found)).sum()
    return 100 * float(hits) / max(int(wanted.sum()), 1)


def recall_facts(
    stage: str,
    search: ExactNeighbours | HnswNeighbours,
    queries: np.ndarray,
    k: int,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """`search_recall` as a fact for the metrics of `stage`, rounded; no fact for exact search.

    Says on stderr if the search finds too few of the nearest labels, and which settings help.
    """
    recall = search_recall(search, queries, k, seed, device)
    if recall is None:
        return {}
    if recall < WEAK:
        print(
            f"warning: the HNSW search of the stage {stage} finds {recall:.1f} % of the {k} "
            f"nearest labels; raise {stage}.hnsw.m, ef_construction or ef, or set {stage}.search "
            "to exact",
            file=sys.stderr,
            flush=True,
        )
    return {"search_recall": round(recall, 2)}


def _best(rows: LabelRows, queries: np.ndarray, k: int, device: torch.device) -> np.ndarray:
    """(n, k) float32 similarities of the k nearest labels, best first, -inf for none.

    Exact search copies its rows. So it gets them in parts, all rows of a label in one part.
    """
    counts = np.bincount(rows.label[rows.label >= 0], minlength=rows.num_labels)
    part_of_label = (np.cumsum(counts) - counts) // PART
    part_of_row = np.where(rows.label >= 0, part_of_label[rows.label], -1)
    best = np.full((len(queries), k), -np.inf, np.float32)
    for part in np.unique(part_of_row[part_of_row >= 0]):
        mine = np.flatnonzero(part_of_row == part)
        label = rows.label[mine] - rows.label[mine].min()
        some = LabelRows(rows.rows[mine], label, int(label.max()) + 1)
        _, values = ExactNeighbours(some, device).search(queries, k)
        best = -np.sort(-np.concatenate([best, values], 1), 1)[:, :k]
    return best

"""Figures on valid by which Module IV can choose an epoch."""

from __future__ import annotations

import numpy as np
import torch

from mufin.artifacts.curated import Split
from mufin.corpus.descriptors import DescriptorStore
from mufin.metrics import precision_at_k
from mufin.nn.embedding import embed_members
from mufin.nn.mufin import Mufin
from mufin.ragged import Lists
from mufin.ranking.order import top
from mufin.ranking.scoring import classifier_scores, label_sides

CELLS = 2**24  # candidates scored at once; they take 200 MB


def valid_figures(
    network: Mufin,
    store: DescriptorStore,
    label_products: np.ndarray,
    split: Split,
    candidates: Lists | None,
    device: torch.device,
    precision: torch.dtype,
) -> dict[str, float]:
    """P@1 and P@5 on `split` by classifier score only, in percent.

    `candidates` are the labels to rank for each datapoint; None ranks all labels. All processes of
    a stage must call it: they share the work.
    """
    labels = embed_members([network], store, label_products, device, precision)
    [datapoints] = embed_members([network], store, split.product, device, precision)
    sides, every = label_sides([network], labels, device), np.arange(len(label_products))
    width = len(every) if candidates is None else int(candidates.lengths().max(initial=0))
    step, ranked = max(1, CELLS // max(width, 1)), np.full((len(split), 5), -1, np.int64)
    for start in range(0, len(split), step):
        rows = np.arange(start, min(start + step, len(split)))
        mine = None if candidates is None else candidates.take(rows).padded()
        ids = np.tile(every, (len(rows), 1)) if mine is None else mine
        scores = classifier_scores(sides, [datapoints.take(rows)], ids, device)
        ranked[rows], _ = top(ids, scores, split.excluded.take(rows), width=5)
    return {
        f"P@{k}": float(precision_at_k(ranked, split.labels, k, split.excluded)) for k in (1, 5)
    }

"""Figures on valid by which Module IV can choose an epoch."""

from __future__ import annotations

import numpy as np
import torch

from mufin.artifacts.curated import Split
from mufin.corpus.descriptors import DescriptorStore
from mufin.metrics import precision_at_k
from mufin.nn.embedding import embed
from mufin.nn.mufin import Mufin
from mufin.ragged import Lists
from mufin.ranking.order import top
from mufin.ranking.scoring import classifier_scores, label_sides


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

    `candidates` are the labels to rank for each datapoint; None ranks all labels.
    """
    labels = [embed(network, store, label_products, device, precision)]
    datapoints = [embed(network, store, split.product, device, precision)]
    every = np.tile(np.arange(len(label_products)), (len(split), 1))
    ids = candidates.padded() if candidates is not None else every
    scores = classifier_scores(label_sides([network], labels, device), datapoints, ids, device)
    ranked, _ = top(ids, scores, split.excluded, width=5)
    return {
        f"P@{k}": float(precision_at_k(ranked, split.labels, k, split.excluded)) for k in (1, 5)
    }

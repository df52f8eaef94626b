"""Cross-attention (A_C) in a fine-tuned network: weights, scores without and with it (Fig. 5)."""

from __future__ import annotations

import numpy as np
import torch

from mufin.nn.bags import Bag
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.embedding import Embedded
from mufin.nn.mufin import Mufin
from mufin.ranking.predictor import Predictor
from mufin.ranking.scoring import classifier_scores, label_sides


def has_cross_attention(network: Mufin) -> bool:
    """False for the variants ConCat and no A_C, which have another block, or none, in its place."""
    return isinstance(network.cross_attention, CrossAttention)


@torch.inference_mode()
def attention_weights(
    network: Mufin, datapoints: Embedded, i: int, labels: Embedded, label: int
) -> np.ndarray:
    """(m_i, m_l): how much each descriptor of datapoint i takes from each of the label's.

    Rows sum to 1. The mean over the heads of A_C.
    """
    block = network.cpu().eval().cross_attention
    assert isinstance(block, CrossAttention)
    return block.pair_weights(_bag(datapoints, i), _bag(labels, label))[0].mean(0).numpy()


@torch.inference_mode()
def adapted(
    network: Mufin, datapoints: Embedded, i: int, labels: Embedded, label: int
) -> np.ndarray:
    """(D,): x^{2,l}, the vector of datapoint i after cross-attention with one label."""
    return network.cpu().eval().adapted(_bag(datapoints, i), _bag(labels, label))[0].numpy()


def _bag(embedded: Embedded, i: int) -> Bag:
    return embedded.bags(np.array([i]), torch.device("cpu"))


def scores_before_and_after(
    predictor: Predictor, datapoints: Embedded, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """<x^1, w_l> and <x^{2,l}, w_l> by the first network -> two (n, K) float32.

    `candidates` (n, K) label ids of each datapoint, -1 for none (its scores have no meaning).
    """
    index, device = predictor.index, predictor.device
    ids = np.maximum(candidates, 0)
    before = np.zeros(ids.shape, np.float32)
    for row, x in enumerate(datapoints.vectors):  # not at once: (n, K, D) would be large
        before[row] = index.classifiers[0][ids[row]] @ x
    sides = label_sides(predictor.networks[:1], index.labels[:1], device)
    return before, classifier_scores(sides, [datapoints], candidates, device)

"""Classifier scores c = <w_l, x^{2,l}> of candidate labels (MUFIN Sec. 3.1, Prediction)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mufin.nn.bags import Bag
from mufin.nn.embedding import Embedded
from mufin.nn.label_side import LabelSide
from mufin.nn.mufin import Mufin


@dataclass(frozen=True, slots=True)
class LabelSides:
    """The networks of an ensemble, and what each needs of all labels to score them."""

    networks: list[Mufin]
    sides: list[LabelSide]


@torch.inference_mode()
def label_sides(
    networks: list[Mufin],
    labels: list[Embedded],
    device: torch.device,
    alpha_one: bool = False,
    chunk: int = 8192,
) -> LabelSides:
    """The label sides of all labels, computed `chunk` labels at a time.

    With `alpha_one` the classifier of a label is its embedding z^1 (of `directed` classifiers: what
    their matrix makes of it), which needs no training of the label.
    """
    sides = []
    for network, embedded in zip(networks, labels):
        network.to(device)
        num_labels = len(embedded.vectors)
        width = max(int(np.diff(embedded.offsets).max(initial=0)), 1)
        parts = []
        for start in range(0, num_labels, chunk):
            ids = np.arange(start, min(start + chunk, num_labels))
            z = torch.from_numpy(embedded.vectors[ids]).to(device)
            if alpha_one:
                w = network.unseen_classifier(z)
            else:
                w = network.classifier(torch.from_numpy(ids).to(device), z)
            parts.append(network.label_side(embedded.bags(ids, device, width), w))
        sides.append(_joined(parts))
    return LabelSides(networks, sides)


def _joined(parts: list[LabelSide]) -> LabelSide:
    """Joins the sides of all chunks to one; empties `parts`.

    It joins field by field and frees each, so that only one field is in memory twice. The side of
    300,000 labels takes 12 GB.
    """
    kind = type(parts[0])
    columns = [list(field) for field in zip(*(part.tensors() for part in parts))]
    parts.clear()
    return kind(*(torch.cat(columns.pop(0)) for _ in range(len(columns))))


@torch.inference_mode()
def classifier_scores(
    labels: LabelSides,
    datapoints: list[Embedded],
    candidates: np.ndarray,
    device: torch.device,
    budget: int = 2**25,
) -> np.ndarray:
    """(n, K) float32: the mean over members of <w_l, x^{2,l}>.

    `candidates` (n, K) are label ids, -1 = none; scores of missing candidates are arbitrary.
    Datapoints are processed in chunks that take about `budget` numbers of memory.
    """
    n, width = candidates.shape
    num_labels = len(labels.sides[0].w)
    # With many candidates it is cheaper to score all labels than to copy a side per datapoint.
    every = width * 4 >= num_labels
    if device.type == "cuda" and not every:
        budget *= 16  # a dozen datapoints at a time would leave a GPU idle between launches
    per = (num_labels if every else width) * labels.sides[0].numbers(own=not every)
    chunk = int(max(1, budget // max(per, 1)))
    out = np.empty((n, width), np.float32)
    for start in range(0, n, chunk):
        rows = np.arange(start, min(start + chunk, n))
        ids = torch.from_numpy(np.maximum(candidates[rows], 0).astype(np.int64)).to(device)
        total = torch.zeros((), device=device)
        for network, side, x in zip(labels.networks, labels.sides, datapoints):
            bags = x.bags(rows, device)
            total = total + _scores(network, bags, side, ids, every)
        out[rows] = (total / len(labels.networks)).float().cpu().numpy()
    return out


def _scores(network: Mufin, bags: Bag, side: LabelSide, ids: Tensor, every: bool) -> Tensor:
    """(B, K) scores of labels `ids` (B, K); `every`: scores all labels and picks these."""
    if every:
        return network.scores(bags, side).gather(1, ids)
    return network.scores(bags, side[ids])

"""Fine-tuned MUFIN at prediction: embed, retrieve, classify, mix (MUFIN Sec. 3.1, Prediction with MUFIN).

Members (networks of several seeds) are averaged: their vectors are laid side by side, divided by sqrt(members), so that
one inner product is the mean of theirs and everything after (search structure, centroids) needs no change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.ann import LabelRows
from pipeline.nn.mufin import Mufin
from pipeline.nn.scoring import LabelSide, cross_scores, label_side
from pipeline.ragged import Lists
from pipeline.ranking import rank
from pipeline.training.embedding import Embedded, embed
from pipeline.training.loop import Machine
from pipeline.xc_metrics import precision_at_k


def embed_members(members: list[Mufin], store, products: np.ndarray, device: torch.device, precision: torch.dtype,
                  modalities: set[int] | None = None) -> list[Embedded]:
    """`products` embedded by each member; `modalities` (codes) leaves other descriptors out."""
    return [embed(m.to(device), store, products, device, precision, modalities=modalities) for m in members]


def joint_vectors(embedded: list[Embedded]) -> np.ndarray:
    """(n, members x D) float32: x^1 of all members side by side, unit norm."""
    return np.concatenate([e.vectors for e in embedded], 1) / np.sqrt(len(embedded), dtype=np.float32)


def joint_rows(embedded: list[Embedded]) -> np.ndarray:
    """(R, members x D) float32: bag rows of all members side by side, unit norm.

    The paper leaves their length open. After A_S's LayerNorm a row is sqrt(D) long: it would drown the centroids (of norm
    1 at most) in the search, and the classifier's score in beta c + (1 - beta) a. So similarities are cosines throughout.
    """
    return np.concatenate([_unit(e.rows) for e in embedded], 1) / np.sqrt(len(embedded), dtype=np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of norm 1; zero stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def augmented_rows(rows: np.ndarray, offsets: np.ndarray, centroids: np.ndarray) -> LabelRows:
    """The sum(m_l + 1) vectors of augmented retrieval: every label's bag rows and its centroid, unit norm (Module II).

    `rows` of `joint_rows`; `centroids` (L, D), or (0, D) where labels have no train datapoints.
    """
    num_labels = len(offsets) - 1
    label = np.concatenate([np.repeat(np.arange(num_labels), np.diff(offsets)), np.arange(len(centroids))])
    vectors = np.concatenate([rows, _unit(centroids)]).astype(np.float32, copy=False)
    return LabelRows(vectors, label.astype(np.int64), num_labels)


@dataclass(frozen=True, slots=True)
class LabelSides:
    """Every label's side of the classifier score, for each member."""

    members: list[Mufin]
    sides: list[LabelSide]


@torch.inference_mode()
def label_sides(members: list[Mufin], labels: list[Embedded], device: torch.device, alpha_one: bool = False,
                chunk: int = 8192) -> LabelSides:
    """What the scores need of all labels (`alpha_one`: w = z^1, which needs no training of the label)."""
    sides = []
    for member, embedded in zip(members, labels):
        member.to(device)
        width = max(int(np.diff(embedded.offsets).max(initial=0)), 1)
        parts = []
        for start in range(0, len(embedded.offsets) - 1, chunk):
            ids = np.arange(start, min(start + chunk, len(embedded.offsets) - 1))
            bags, z = embedded.bags(ids, device, width), torch.from_numpy(embedded.vectors[ids]).to(device)
            w = z if alpha_one else member.classifier(torch.from_numpy(ids).to(device), z)
            parts.append(label_side(member, bags, w))
        kind, columns = type(parts[0]), [list(field) for field in zip(*(part.tensors() for part in parts))]
        parts.clear()                            # so that one field alone is held twice: 12 GB in all for 300,000 labels
        sides.append(kind(*(torch.cat(columns.pop(0)) for _ in range(len(columns)))))
    return LabelSides(members, sides)


@torch.inference_mode()
def classifier_scores(labels: LabelSides, datapoints: list[Embedded], candidates: np.ndarray, device: torch.device,
                      budget: int = 2**25) -> np.ndarray:
    """c = <w_l, x^{2,l}>, the mean over members, for each datapoint's candidates (n, K), -1 = none -> (n, K) float32.

    A chunk of datapoints makes at most about `budget` numbers at once.
    """
    n, width = candidates.shape
    num_labels = len(labels.sides[0].w)
    every = width * 4 >= num_labels          # so many candidates that scoring all labels at once is the cheaper way
    if device.type == "cuda" and not every:
        budget *= 16                         # a dozen datapoints at a time would leave a GPU idle between launches
    per = (num_labels if every else width) * labels.sides[0].numbers(own=not every)
    chunk = int(max(1, budget // max(per, 1)))
    out = np.empty((n, width), np.float32)
    for start in range(0, n, chunk):
        rows = np.arange(start, min(start + chunk, n))
        ids = torch.from_numpy(np.maximum(candidates[rows], 0).astype(np.int64)).to(device)
        total: Tensor | float = 0.0
        for member, side, x in zip(labels.members, labels.sides, datapoints):
            bags = x.bags(rows, device)
            total = total + (cross_scores(member, bags, side).gather(1, ids) if every
                             else cross_scores(member, bags, side[ids]))
        out[rows] = (total / len(labels.members)).float().cpu().numpy()
    return out


def valid_figures(model: Mufin, store, label_products: np.ndarray, split, candidates: Lists | None,
                  where: Machine) -> dict[str, float]:
    """P@1 and P@5 on `split` by classifier score alone, over `candidates` (None: all labels); chooses an epoch."""
    labels = [embed(model, store, label_products, where.device, where.precision)]
    datapoints = [embed(model, store, split.product, where.device, where.precision)]
    padded = candidates.padded() if candidates is not None else np.tile(np.arange(len(label_products)), (len(split), 1))
    scores = classifier_scores(label_sides([model], labels, where.device), datapoints, padded, where.device)
    ranked, _ = rank(padded, scores, np.zeros_like(scores), 1.0, split.excluded, width=5)
    return {f"P@{k}": float(precision_at_k(ranked, split.labels, k, split.excluded)) for k in (1, 5)}

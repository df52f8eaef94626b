"""Module I: E_V, E_T and A_S, trained on pairs of labels and datapoints (MUFIN Sec. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mufin import process_group
from mufin.artifacts.curated import Split
from mufin.corpus.descriptors import DescriptorBatch, DescriptorStore
from mufin.nn.embedding import embed
from mufin.nn.mufin import Mufin
from mufin.training import distributed, losses
from mufin.training.contraction import COLUMN, squared_mean
from mufin.training.loop import generator
from mufin.training.machine import Machine
from mufin.training.mining import (
    Relevance,
    balanced_clusters,
    draw,
    eligible_positives,
    hardest,
    positives_of,
)


class PretrainSettings(Protocol):
    """The settings of Module I; `mufin.params.Pretrain` says what they mean."""

    @property
    def loss(self) -> str: ...
    @property
    def gamma(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def negative_weights(self) -> str: ...
    @property
    def batching(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def positives(self) -> int: ...
    @property
    def negatives(self) -> int: ...
    @property
    def positive_threshold(self) -> float: ...
    @property
    def hard_positives(self) -> bool: ...
    @property
    def hard_negatives(self) -> bool: ...
    @property
    def random_epochs(self) -> int: ...
    @property
    def refresh_epochs(self) -> int: ...
    @property
    def epochs(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Step:
    """A step of Module I: A anchors and M distinct others, and all their U distinct products."""

    batch: DescriptorBatch  # this process's share of the products
    count: int  # U
    anchor: Tensor  # (A,) int64, places among the products
    other: Tensor  # (M,) int64, places among the products
    relevant: Tensor  # (A, M) bool, the truth
    allowed: Tensor  # (A, M) bool, false for filter pairs, which are neither positive nor negative
    positive: Tensor  # (A, P) int64, places among the others
    positive_mask: Tensor  # (A, P) bool
    weight: Tensor | None = None  # (A, M) float32, of the relevant pairs; None: all alike

    def to(self, device: torch.device) -> Step:
        return Step(
            self.batch.to(device),
            self.count,
            self.anchor.to(device, non_blocking=True),
            self.other.to(device, non_blocking=True),
            self.relevant.to(device, non_blocking=True),
            self.allowed.to(device, non_blocking=True),
            self.positive.to(device, non_blocking=True),
            self.positive_mask.to(device, non_blocking=True),
            None if self.weight is None else self.weight.to(device, non_blocking=True),
        )


class Pretraining:
    """The job of Module I for `loop.train` (MUFIN Sec. 3.1).

    Anchors are labels and others are datapoints, or the reverse with `batching: datapoints` or
    `datapoint_clusters`. For each anchor of a batch some positives are drawn from its others. The
    positives of one anchor serve as negatives of another. `label_products` (L,) are the products
    of the labels. Strong pairs (`train.weights`) are drawn more often, and have a larger share of
    the softmax's target.
    """

    name, lr = "pretrain", "pretrain.lr"

    def __init__(
        self,
        model: Mufin,
        store: DescriptorStore,
        train: Split,
        label_products: np.ndarray,
        settings: PretrainSettings,
        seed: int,
        machine: Machine,
    ):
        self.model, self.store, self.settings = model, store, settings
        self.seed, self.machine = seed, machine
        (positives, weights), skipped = positives_of(train), train.excluded
        self.datapoints_first = settings.batching in ("datapoints", "datapoint_clusters")
        self.clustered = settings.batching in ("clusters", "datapoint_clusters")
        if self.datapoints_first:
            self.anchors, self.others = train.product, label_products
        else:
            self.anchors, self.others = label_products, train.product
            if weights is not None:
                weights = weights[np.argsort(positives.values, kind="stable")]  # as `transpose`
            positives = positives.transpose(len(label_products))
            skipped = skipped.transpose(len(label_products))
        self.graph, self.weights = positives, weights  # the positives of each anchor
        self.relevant = Relevance(positives, len(self.others))
        self.skipped = Relevance(skipped, len(self.others))
        self.usable = np.flatnonzero(positives.lengths() > 0)  # an anchor needs a positive
        self.epochs, self.steps = settings.epochs, -(-len(self.usable) // settings.batch_size)
        self.eligible: np.ndarray | None = None  # (nnz,) bool over the graph, the hard positives
        self.cluster: np.ndarray | None = None  # (A,) int64, the cluster of each anchor
        # Sum of `squared_mean` over the steps of this epoch, and their number, on the device
        self.spread = torch.zeros(2, dtype=torch.float64, device=machine.device)

    def begin_epoch(self, epoch: int) -> None:
        """Finds hard positives and clusters again, every `refresh_epochs` epochs.

        In the first `random_epochs` epochs positives and batches are random.
        """
        self.spread.zero_()
        s = self.settings
        since = epoch - s.random_epochs
        if since < 0 or since % s.refresh_epochs:
            return
        if not (s.hard_positives or self.clustered):
            return
        anchors = self._vectors(self.anchors)
        if s.hard_positives:
            similarity = self._similarity(anchors, self._vectors(self.others))
            self.eligible = eligible_positives(self.graph, similarity, s.positive_threshold)
        if self.clustered:
            self.cluster = self._clusters(anchors, epoch)

    def _clusters(self, anchors: np.ndarray, epoch: int) -> np.ndarray:
        """(A,) int64: a cluster of similar anchors for each; about eight make a batch."""
        size = max(self.settings.batch_size // 8, 2)
        groups = balanced_clusters(anchors[self.usable], size, generator(self.seed, epoch, 7))
        out = np.zeros(len(self.anchors), np.int64)
        for number, group in enumerate(groups):
            out[self.usable[group]] = number
        return out

    def _vectors(self, products: np.ndarray) -> np.ndarray:
        """The present vectors of `products`, (n, D); each process embeds its share."""
        device, mine = self.machine.device, products[process_group.share(len(products))]
        embedded = embed(self.model, self.store, mine, device, self.machine.precision)
        return process_group.gather(embedded.vectors, device)

    def _similarity(self, anchors: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(nnz,) <z, x> of each pair of the graph, computed a million pairs at a time."""
        rows, out = self.graph.rows(), np.empty(len(self.graph.values), np.float32)
        for at in range(0, len(out), 2**20):
            part = slice(at, at + 2**20)
            out[part] = np.einsum("nd,nd->n", anchors[rows[part]], others[self.graph.values[part]])
        return out

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The anchors of each step: every usable anchor once, in random order.

        With clusters, the anchors of a cluster follow each other and the clusters are in random
        order.
        """
        rng = generator(self.seed, epoch)
        order = rng.permutation(self.usable)
        if self.cluster is not None:
            ranks = rng.permutation(self.cluster.max() + 1)
            order = order[np.argsort(ranks[self.cluster[order]], kind="stable")]
        return np.array_split(order, self.steps)

    def prepare(self, anchors: np.ndarray, rng: np.random.Generator) -> Step:
        """Draws the positives of `anchors` and loads the descriptors of all products."""
        picks, mask = draw(
            self.graph, anchors, self.settings.positives, rng, self.eligible, self.weights
        )
        others = np.unique(picks[mask])
        # Each distinct product is encoded once.
        both = np.concatenate([self.anchors[anchors], self.others[others]])
        products, place = np.unique(both, return_inverse=True)
        return Step(
            self.store.batch(products[process_group.share(len(products))]),
            len(products),
            torch.from_numpy(place[: len(anchors)]),
            torch.from_numpy(place[len(anchors) :]),
            torch.from_numpy(self.relevant.block(anchors, others)),
            torch.from_numpy(~self.skipped.block(anchors, others)),
            torch.from_numpy(np.searchsorted(others, picks) * mask),
            torch.from_numpy(mask),
            None if self.weights is None else self._weight(anchors, others, self.weights),
        )

    def _weight(self, anchors: np.ndarray, others: np.ndarray, weights: np.ndarray) -> Tensor:
        return torch.from_numpy(self.relevant.weights(anchors, others, weights))

    def loss(self, step: Step) -> Tensor:
        """The triplet loss of the paper, its soft form, or the symmetric softmax."""
        s = self.settings
        bags = distributed.gather_bags(self.model.bag(step.batch), step.count)
        vectors = self.model.vector(bags).float()
        self.spread += torch.stack([squared_mean(vectors), torch.ones((), device=vectors.device)])
        # In float32: near 1 the numbers of bfloat16 are 0.004 apart, too coarse for cosines.
        with torch.autocast(vectors.device.type, enabled=False):
            scores = vectors[step.anchor] @ vectors[step.other].T
        if s.loss == "softmax":
            allowed = step.allowed | step.relevant
            scores = scores / s.temperature
            return losses.symmetric_softmax(scores, step.relevant, allowed, step.weight)
        positives, there = scores.gather(1, step.positive), step.positive_mask
        negatives, mask = scores, step.allowed & ~step.relevant
        if s.loss == "triplet" or not s.hard_negatives:
            negatives, mask = hardest(scores, mask, s.negatives, random=not s.hard_negatives)
        if s.loss == "soft_triplet":
            t = s.temperature
            return losses.soft_triplet(positives / t, negatives / t, there, mask)
        temperature = s.temperature if s.negative_weights == "softmax" else None
        return losses.triplet(positives, negatives, there, mask, s.gamma, temperature)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """`squared_mean`, averaged over the steps of the epoch."""
        total, steps = self.spread.tolist()
        return {COLUMN: total / steps}

    def anchor_table(self) -> str:
        return "train" if self.datapoints_first else "labels"

    def state(self) -> tuple[dict[str, Tensor], dict]:
        held = {"eligible": self.eligible, "cluster": self.cluster}
        tensors = {n: torch.from_numpy(a) for n, a in held.items() if a is not None}
        return tensors | {"spread": self.spread}, {}

    def load_state(self, tensors: dict[str, Tensor], facts: dict) -> None:
        for name, tensor in tensors.items():
            if name == "spread":
                self.spread.copy_(tensor)
            else:
                setattr(self, name, tensor.numpy())

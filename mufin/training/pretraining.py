"""Module I: the encoders and A_S, trained siamese on labels and their datapoints (MUFIN Sec. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mufin.corpus.descriptors import DescriptorBatch, DescriptorStore
from mufin.nn.embedding import embed
from mufin.nn.mufin import Mufin
from mufin.ragged import Lists
from mufin.training import distributed, losses
from mufin.training.loop import generator
from mufin.training.machine import Machine
from mufin.training.mining import Relevance, balanced_clusters, draw, eligible_positives, hardest


@dataclass(frozen=True, slots=True)
class Step:
    """A Module I step: A anchors, M distinct others, and where each lies among the U distinct products encoded."""

    batch: DescriptorBatch  # of this process's share of the products
    count: int  # U
    anchor: Tensor  # (A,) int64 into the products
    other: Tensor  # (M,) int64 into the products
    relevant: Tensor  # (A, M) bool, the truth
    allowed: Tensor  # (A, M) bool: false for filter pairs, which are neither positive nor negative
    positive: Tensor  # (A, P) int64 into the others
    positive_mask: Tensor  # (A, P) bool

    def to(self, device: torch.device) -> Step:
        def move(t):
            return t.to(device, non_blocking=True)

        return Step(
            self.batch.to(device), self.count, *(move(getattr(self, n)) for n in self.__slots__[2:])
        )


class Pretraining:
    """The job of Module I for `loop.train`.

    Anchors are labels (the paper's batching, or clusters of similar labels) or datapoints; the others are the positives
    drawn for the anchors of the batch, which serve as one another's negatives. `settings` has the fields of
    `params.Pretrain`.
    """

    name = "pretrain"

    def __init__(
        self,
        model: Mufin,
        store: DescriptorStore,
        datapoints: np.ndarray,
        label_products: np.ndarray,
        truth: Lists,
        excluded: Lists,
        settings,
        seed: int,
        machine: Machine,
    ):
        self.model, self.store, self.settings, self.seed, self.machine = (
            model,
            store,
            settings,
            seed,
            machine,
        )
        by_label = settings.batching != "datapoints"
        positives = truth.minus(excluded)  # a filter pair is neither positive nor negative
        self.graph = positives.transpose(len(label_products)) if by_label else positives
        skip = excluded.transpose(len(label_products)) if by_label else excluded
        self.anchors, self.others = (
            (label_products, datapoints) if by_label else (datapoints, label_products)
        )
        self.relevant, self.skipped = (
            Relevance(self.graph, len(self.others)),
            Relevance(skip, len(self.others)),
        )
        self.usable = np.flatnonzero(np.diff(self.graph.offsets) > 0)  # an anchor needs a positive
        self.epochs, self.steps = settings.epochs, -(-len(self.usable) // settings.batch_size)
        self.eligible: np.ndarray | None = None  # (nnz,) bool, hard positives
        self.cluster: np.ndarray | None = None  # (A,) int64

    def begin_epoch(self, epoch: int) -> None:
        """Refresh the embeddings that mine hard positives (and clusters), every `refresh_epochs` after the random ones."""
        s = self.settings
        since = epoch - s.random_epochs
        if (
            since < 0
            or since % s.refresh_epochs
            or not (s.hard_positives or s.batching == "clusters")
        ):
            return
        anchors = self._vectors(self.anchors)
        if s.hard_positives:
            similarity = self._similarity(anchors, self._vectors(self.others))
            self.eligible = eligible_positives(self.graph, similarity, s.positive_threshold)
        if s.batching == "clusters":
            groups = balanced_clusters(
                anchors[self.usable], max(s.batch_size // 8, 2), generator(self.seed, epoch, 7)
            )
            self.cluster = np.zeros(len(self.anchors), np.int64)
            for number, group in enumerate(groups):
                self.cluster[self.usable[group]] = number

    def _vectors(self, products: np.ndarray) -> np.ndarray:
        """Current vectors of `products`, (n, D); each process embeds its share."""
        device, mine = self.machine.device, products[distributed.share(len(products))]
        return distributed.gather_rows(
            embed(self.model, self.store, mine, device, self.machine.precision).vectors,
            len(products),
            device,
        )

    def _similarity(self, anchors: np.ndarray, others: np.ndarray) -> np.ndarray:
        """<z, x> of each pair of the graph, (nnz,), a million pairs at a time."""
        rows, out = self.graph.rows(), np.empty(len(self.graph.values), np.float32)
        for at in range(0, len(out), 2**20):
            part = slice(at, at + 2**20)
            out[part] = np.einsum("nd,nd->n", anchors[rows[part]], others[self.graph.values[part]])
        return out

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The anchors of each step: all usable ones once, in random order, or cluster after cluster in random order."""
        rng = generator(self.seed, epoch)
        order = rng.permutation(self.usable)
        if self.cluster is not None:
            ranks = rng.permutation(self.cluster.max() + 1)
            order = order[np.argsort(ranks[self.cluster[order]], kind="stable")]
        return np.array_split(order, self.steps)

    def prepare(self, anchors: np.ndarray, rng: np.random.Generator) -> Step:
        picks, mask = draw(self.graph, anchors, self.settings.positives, rng, self.eligible)
        others = np.unique(picks[mask])
        products, place = np.unique(
            np.concatenate([self.anchors[anchors], self.others[others]]), return_inverse=True
        )
        return Step(
            self.store.batch(products[distributed.share(len(products))]),
            len(products),
            torch.from_numpy(place[: len(anchors)]),
            torch.from_numpy(place[len(anchors) :]),
            torch.from_numpy(self.relevant.block(anchors, others)),
            torch.from_numpy(~self.skipped.block(anchors, others)),
            torch.from_numpy(np.searchsorted(others, picks) * mask),
            torch.from_numpy(mask),
        )

    def loss(self, step: Step) -> Tensor:
        s = self.settings
        bags = distributed.gather_bags(self.model.bag(step.batch), step.count)
        vectors = self.model.vector(bags).float()
        with torch.autocast(
            vectors.device.type, enabled=False
        ):  # bf16 steps of 0.004 are coarse for cosines near 1
            scores = vectors[step.anchor] @ vectors[step.other].T
        if s.loss == "softmax":
            return losses.symmetric_softmax(
                scores / s.temperature, step.relevant, step.allowed | step.relevant
            )
        negatives, mask = hardest(
            scores, step.allowed & ~step.relevant, s.negatives, random=not s.hard_negatives
        )
        positives = scores.gather(1, step.positive)
        return losses.triplet(positives, negatives, step.positive_mask, mask, s.gamma)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        return {}

    def anchor_table(self) -> str:
        return "train" if self.settings.batching == "datapoints" else "labels"

    def state(self) -> tuple[dict[str, Tensor], dict]:
        held = {"eligible": self.eligible, "cluster": self.cluster}
        return {n: torch.from_numpy(a) for n, a in held.items() if a is not None}, {}

    def load_state(self, tensors: dict[str, Tensor], facts: dict) -> None:
        for name, tensor in tensors.items():
            setattr(self, name, tensor.numpy())

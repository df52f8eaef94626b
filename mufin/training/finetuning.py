"""Module IV: classifiers, cross-attention and the encoders, on shortlists (MUFIN Sec. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np
import torch
from torch import Tensor

from mufin.corpus.descriptors import DescriptorBatch, DescriptorStore
from mufin.nn.bags import Bag
from mufin.nn.mufin import Mufin
from mufin.nn.weights import weights_of
from mufin.ragged import Lists
from mufin.training import distributed, losses
from mufin.training.mining import Relevance, draw, shortlist_negatives


@dataclass(frozen=True, slots=True)
class Step:
    """A Module IV step: A datapoints, U distinct labels, and where each lies among the distinct products encoded."""

    batch: DescriptorBatch  # of this process's share of the products
    count: int  # products in the whole step
    labels: Tensor  # (U,) int64 label ids
    datapoint_at: Tensor  # (A,) int64 into the products
    label_at: Tensor  # (U,) int64 into the products
    relevant: Tensor  # (A, U) bool: S_i for the hinge, the whole truth for the softmax
    negative: Tensor  # (A, U) bool: T_i, or all that is allowed and not relevant

    def to(self, device: torch.device) -> Step:
        def move(t):
            return t.to(device, non_blocking=True)

        return Step(
            self.batch.to(device), self.count, *(move(getattr(self, n)) for n in self.__slots__[2:])
        )


class Finetuning:
    """The job of Module IV for `loop.train`; `settings` has the fields of `params.Finetune`.

    Every distinct label of a step is encoded once. The hinge is over S_i and T_i (or all labels, `candidates: all`); the
    softmax shares the step's labels among its datapoints. `validate(model)` gives a figure of merit on valid; with
    `select: valid` the weights of the best epoch are kept.
    """

    name = "finetune"

    def __init__(
        self,
        model: Mufin,
        store: DescriptorStore,
        datapoints: np.ndarray,
        label_products: np.ndarray,
        truth: Lists,
        excluded: Lists,
        shortlist: Lists,
        settings,
        seed: int,
        validate: Callable[[Mufin], dict[str, float]],
    ):
        self.model, self.store, self.settings, self.validate = model, store, settings, validate
        self.datapoints, self.label_products = datapoints, label_products
        self.positives = truth.minus(excluded)  # a filter pair is neither positive nor negative
        self.negatives = shortlist_negatives(shortlist, truth, excluded, len(label_products))
        self.relevance, self.exclusion = (
            Relevance(x, len(label_products)) for x in (truth, excluded)
        )
        self.usable = np.flatnonzero(np.diff(self.positives.offsets) > 0)
        self.epochs, self.steps = settings.epochs, -(-len(self.usable) // settings.batch_size)
        self.seed = seed
        self.best: tuple[float, dict[str, Tensor]] | None = None

    def begin_epoch(self, epoch: int) -> None:
        pass

    def plan(self, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng([self.seed, epoch]).permutation(self.usable)
        return np.array_split(order, self.steps)

    def prepare(self, datapoints: np.ndarray, rng: np.random.Generator) -> Step:
        s, num_labels = self.settings, len(self.label_products)
        positives, positive_mask = draw(self.positives, datapoints, s.positives, rng)
        hard, hard_mask = draw(self.negatives, datapoints, s.negatives, rng)
        random = rng.integers(num_labels, size=(len(datapoints), s.random_negatives))
        if s.candidates == "all":
            labels = np.arange(num_labels)
        else:
            labels = np.unique(
                np.concatenate([positives[positive_mask], hard[hard_mask], random.ravel()])
            )
        truth, allowed = (
            self.relevance.block(datapoints, labels),
            ~self.exclusion.block(datapoints, labels),
        )
        if s.loss == "softmax" or s.candidates == "all":
            relevant, negative = truth & allowed, allowed & ~truth
        else:
            relevant = _marked(labels, positives, positive_mask)
            negative = _marked(labels, hard, hard_mask) | _marked(
                labels, random, np.ones(random.shape, bool)
            )
            negative &= allowed & ~truth
        both = np.concatenate([self.datapoints[datapoints], self.label_products[labels]])
        products, place = np.unique(both, return_inverse=True)
        return Step(
            self.store.batch(products[distributed.share(len(products))]),
            len(products),
            *map(
                torch.from_numpy,
                (labels, place[: len(datapoints)], place[len(datapoints) :], relevant, negative),
            ),
        )

    def loss(self, step: Step) -> Tensor:
        s = self.settings
        bags = distributed.gather_bags(self.model.bag(step.batch), step.count)
        bags = Bag(bags.rows.float(), bags.modality)
        x, z = bags[step.datapoint_at], bags[step.label_at]
        w = self.model.classifier(step.labels, self.model.vector(z))
        with torch.autocast(x.rows.device.type, enabled=False):
            if s.loss == "softmax" or s.candidates == "all":
                scores = self.model.scores(x, self.model.label_side(z, w))
                if s.loss == "softmax":
                    allowed = step.relevant | step.negative
                    return losses.multi_positive_softmax(
                        scores / s.temperature, step.relevant, allowed
                    )
                return losses.cosine_hinge(scores, step.relevant, step.negative, s.gamma)
            row, column = (step.relevant | step.negative).nonzero(as_tuple=True)
            pairs = (self.model.adapted(x[row], z[column]) * w[column]).sum(-1, keepdim=True)
            kind = step.relevant[row, column].unsqueeze(1)
            return (
                losses.cosine_hinge(pairs, kind, ~kind, s.gamma)
                * len(pairs)
                / len(step.datapoint_at)
            )

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """With `select: valid`, valid's figures after the epoch; keeps the weights of the best, the later of equals."""
        if self.settings.select != "valid":
            return {}
        figures = self.validate(self.model)
        merit = sum(figures.values())
        if self.best is None or merit >= self.best[0]:
            self.best = merit, weights_of(self.model)
        return {f"valid_{name}": value for name, value in figures.items()}

    def finish(self) -> None:
        """Put the chosen epoch's weights in place."""
        if self.best is not None:
            self.model.load_state_dict(self.best[1])

    def anchor_table(self) -> str:
        return "train"

    def state(self) -> tuple[dict[str, Tensor], dict]:
        if self.best is None:
            return {}, {}
        return {f"best/{n}": t for n, t in self.best[1].items()}, {"merit": self.best[0]}

    def load_state(self, tensors: dict[str, Tensor], facts: dict) -> None:
        if facts:
            self.best = facts["merit"], {n.removeprefix("best/"): t for n, t in tensors.items()}


def _marked(labels: np.ndarray, picks: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(A, U) bool: which of the sorted `labels` each row picked."""
    out = np.zeros((len(picks), len(labels)), bool)
    rows = np.broadcast_to(np.arange(len(picks))[:, None], picks.shape)
    out[rows[mask], np.searchsorted(labels, picks[mask])] = True
    return out

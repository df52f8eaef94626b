"""Module IV: classifiers, cross-attention and encoders, trained on shortlists (MUFIN Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mufin import process_group
from mufin.artifacts.curated import Split
from mufin.corpus.descriptors import DescriptorBatch, DescriptorStore
from mufin.errors import MufinError
from mufin.nn.bags import Bag
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.mufin import Mufin
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.nn.weights import weights_of
from mufin.ragged import Lists
from mufin.training import distributed, losses
from mufin.training.every_label import (
    EveryLabel,
    every_label,
    hinge_of_bags,
    labels_per_block,
    softmax_of_bags,
    softmax_of_vectors,
)
from mufin.training.fused_adamw import FusedAdamW
from mufin.training.fused_head import fused_softmax
from mufin.training.mining import Relevance, draw, members, positives_of, shortlist_negatives


class FinetuneSettings(Protocol):
    """The settings of Module IV; `mufin.params.Finetune` says what they mean."""

    @property
    def loss(self) -> str: ...
    @property
    def candidates(self) -> str: ...
    @property
    def free_precision(self) -> str: ...
    @property
    def gamma(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def positives_from(self) -> str: ...
    @property
    def positives(self) -> int: ...
    @property
    def negatives(self) -> int: ...
    @property
    def random_negatives(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def train_labels(self) -> bool: ...
    @property
    def select(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Step:
    """A step of Module IV: A datapoints and U distinct labels, and all their distinct products."""

    batch: DescriptorBatch  # this process's share of the products
    count: int  # products in the whole step
    labels: Tensor  # (U,) int64 label ids
    datapoint_at: Tensor  # (A,) int64, places among the products
    label_at: Tensor  # (U,) int64, places among the products; (0,) without `train_labels`
    relevant: Tensor  # (A, U) bool: S_i for the hinge, all positives for the softmax
    negative: Tensor  # (A, U) bool: T_i, or every label that is neither true nor a filter pair
    weight: Tensor | None = None  # (A, U) float32, of the true pairs; None: all alike
    every: EveryLabel | None = None  # in place of relevant, negative and weight, which are empty

    def to(self, device: torch.device) -> Step:
        return Step(
            self.batch.to(device),
            self.count,
            self.labels.to(device, non_blocking=True),
            self.datapoint_at.to(device, non_blocking=True),
            self.label_at.to(device, non_blocking=True),
            self.relevant.to(device, non_blocking=True),
            self.negative.to(device, non_blocking=True),
            None if self.weight is None else self.weight.to(device, non_blocking=True),
            None if self.every is None else self.every.to(device),
        )


class Finetuning:
    """The job of Module IV for `loop.train` (MUFIN Sec. 3.1).

    Every distinct label of a step is encoded once. The hinge is over drawn positives S_i and drawn
    negatives T_i, or over all labels with `candidates: all`. The softmax is over all labels of the
    step. All labels of a large catalog are scored in blocks (`every_label`). `shortlist` holds the
    shortlists of the train datapoints, `label_products` (L,) the products of the labels.
    `validate(model)` returns figures on valid; with `select: valid` the weights of the epoch with
    the largest sum of these are kept. Strong pairs (`train.weights`) are drawn more often, and have
    a larger share of the softmax's target. With `train_labels: false`, `embed_labels(model)` gives
    the embeddings of all labels, (L, D) float32, for the steps of an epoch.
    """

    name, lr = "finetune", "finetune.lr"

    def __init__(
        self,
        model: Mufin,
        store: DescriptorStore,
        train: Split,
        label_products: np.ndarray,
        shortlist: Lists,
        settings: FinetuneSettings,
        seed: int,
        validate: Callable[[Mufin], dict[str, float]],
        embed_labels: Callable[[Mufin], np.ndarray] | None = None,
    ):
        self.model, self.store, self.settings = model, store, settings
        self.seed, self.validate, self.embed_labels = seed, validate, embed_labels
        self.held: Tensor | None = None  # z of all labels, (L, D), with `train_labels: false`
        self.datapoints, self.label_products = train.product, label_products
        truth, excluded, num_labels = train.labels, train.excluded, len(label_products)
        self.positives, self.weights = positives_of(train)
        if settings.positives_from == "shortlist":
            self._keep_found(shortlist)
        self.negatives = shortlist_negatives(shortlist, truth, excluded, num_labels)
        self.relevance = Relevance(truth, num_labels)
        self.pairs = Relevance(self.positives, num_labels)  # for their weights
        self.exclusion = Relevance(excluded, num_labels)
        self.usable = np.flatnonzero(self.positives.lengths() > 0)
        self.epochs, self.steps = settings.epochs, -(-len(self.usable) // settings.batch_size)
        by_pair = not isinstance(model.cross_attention, NoCrossAttention)
        self.block: int | None = None  # labels scored at once; None: all of a step
        if settings.candidates == "all":
            self.block = labels_per_block(settings.batch_size, num_labels, by_pair)
        if settings.free_precision == "bf16" or not settings.train_labels:
            self.block = self.block or num_labels
        self.eta: FusedAdamW | None = None  # what updates eta in the backward pass
        self.best: tuple[float, dict[str, Tensor]] | None = None  # merit and weights

    def _keep_found(self, shortlist: Lists) -> None:
        """Drops the true labels that are not in the shortlist of their datapoint."""
        found = members(self.positives, shortlist, len(self.label_products))
        if not found.any():
            raise MufinError(
                "finetune.positives_from is shortlist and no shortlist of train has a true label; "
                "set it to all, or give Module I more epochs"
            )
        self.positives = self.positives.only(found)
        self.weights = None if self.weights is None else self.weights[found]

    def begin_epoch(self, epoch: int) -> None:
        """Without `train_labels`, embeds all labels by the present weights."""
        if not self.settings.train_labels:
            assert self.embed_labels is not None
            self.held = torch.from_numpy(self.embed_labels(self.model)).to(self._device())

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The datapoints of each step: every datapoint with a positive once, in random order."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.usable)
        return np.array_split(order, self.steps)

    def prepare(self, datapoints: np.ndarray, rng: np.random.Generator) -> Step:
        """Draws positives and negatives and loads the descriptors of all products."""
        labels, relevant, negative = self._drawn(datapoints, rng)
        encoded = labels if self.settings.train_labels else labels[:0]
        # Each distinct product is encoded once.
        both = np.concatenate([self.datapoints[datapoints], self.label_products[encoded]])
        products, place = np.unique(both, return_inverse=True)
        return Step(
            self.store.batch(products[process_group.share(len(products))]),
            len(products),
            torch.from_numpy(labels),
            torch.from_numpy(place[: len(datapoints)]),
            torch.from_numpy(place[len(datapoints) :]),
            torch.from_numpy(relevant),
            torch.from_numpy(negative),
            self._weight(datapoints, labels),
            self._every_label(datapoints),
        )

    def _weight(self, datapoints: np.ndarray, labels: np.ndarray) -> Tensor | None:
        if self.weights is None or self.block is not None:
            return None
        return torch.from_numpy(self.pairs.weights(datapoints, labels, self.weights))

    def _every_label(self, datapoints: np.ndarray) -> EveryLabel | None:
        if self.block is None:
            return None
        others, labels = [self.relevance.lists, self.exclusion.lists], len(self.label_products)
        return every_label(datapoints, self.positives, self.weights, others, labels, self.block)

    def _drawn(
        self, datapoints: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The labels (U,) of a step, sorted, and what is relevant and negative, (A, U) bool."""
        s, num_labels = self.settings, len(self.label_products)
        if self.block is not None:
            nothing = np.zeros((0, 0), bool)
            return np.arange(num_labels), nothing, nothing
        positives, positive_mask = draw(
            self.positives, datapoints, s.positives, rng, weights=self.weights
        )
        hard, hard_mask = draw(self.negatives, datapoints, s.negatives, rng)
        random = rng.integers(num_labels, size=(len(datapoints), s.random_negatives))
        if s.candidates == "all":
            labels = np.arange(num_labels)
        else:
            picks = [positives[positive_mask], hard[hard_mask], random.ravel()]
            labels = np.unique(np.concatenate(picks))
        truth = self.relevance.block(datapoints, labels)
        allowed = ~self.exclusion.block(datapoints, labels)
        if s.loss == "softmax" or s.candidates == "all":
            return labels, self.pairs.block(datapoints, labels), allowed & ~truth
        negative = _marked(labels, hard, hard_mask)
        negative |= _marked(labels, random, np.ones(random.shape, bool))
        # A label drawn at random may be true or a filter pair.
        return labels, _marked(labels, positives, positive_mask), negative & allowed & ~truth

    def loss(self, step: Step) -> Tensor:
        """The cosine hinge of the paper, or the multi-positive softmax."""
        s = self.settings
        bags = distributed.gather_bags(self.model.bag(step.batch), step.count)
        bags = Bag(bags.rows.float(), bags.modality)
        x, z = bags[step.datapoint_at], bags[step.label_at]
        kind = x.rows.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        vectors = self.model.vector(z) if self.held is None else self.held
        if self.eta is not None:
            return self._fused(x, vectors, step, self.eta, precision)
        w = self.model.classifier(step.labels, vectors)
        with torch.autocast(kind, enabled=False):
            if step.every is not None:
                return self._over_blocks(x, z, w, step.every, precision)
            if s.loss == "hinge" and s.candidates != "all":
                return self._hinge_of_pairs(step, x, z, w)
            scores = self.model.scores(x, self.model.label_side(z, w))
            if s.loss == "softmax":
                allowed = step.relevant | step.negative
                scores = scores / s.temperature
                return losses.multi_positive_softmax(scores, step.relevant, allowed, step.weight)
            return losses.cosine_hinge(scores, step.relevant, step.negative, s.gamma)

    def _over_blocks(
        self, x: Bag, z: Bag, w: Tensor, every: EveryLabel, precision: torch.dtype | None
    ) -> Tensor:
        """The loss over all labels.

        Without A_C products of vectors are in `precision`, that of autocast: they take most of the
        time, and in bfloat16 a cosine is off by 0.002 at most, far less than the temperature.
        """
        s = self.settings
        if s.loss == "softmax" and isinstance(self.model.cross_attention, NoCrossAttention):
            return softmax_of_vectors(self.model.vector(x), w, every, s.temperature, precision)

        def scores(x: Bag, z: Bag, w: Tensor) -> Tensor:
            return self.model.scores(x, self.model.label_side(z, w))

        if s.loss == "softmax":
            return softmax_of_bags(scores, x, z, w, every, s.temperature)
        return hinge_of_bags(scores, x, z, w, every, s.gamma)

    def _fused(
        self, x: Bag, z: Tensor, step: Step, eta: FusedAdamW, precision: torch.dtype | None
    ) -> Tensor:
        """The softmax over all labels whose backward pass updates `eta`."""
        classifiers, every = self.model.classifiers, step.every
        assert isinstance(classifiers, LabelClassifiers) and every is not None
        vectors = self.model.vector(x), z
        with torch.autocast(x.rows.device.type, enabled=False):
            temperature = self.settings.temperature
            return fused_softmax(*vectors, classifiers, eta, every, temperature, precision)

    def _hinge_of_pairs(self, step: Step, x: Bag, z: Bag, w: Tensor) -> Tensor:
        """The hinge over the drawn pairs only: few of the A U pairs of a step count."""
        row, column = (step.relevant | step.negative).nonzero(as_tuple=True)
        scores = (self.model.adapted(x[row], z[column]) * w[column]).sum(-1, keepdim=True)
        kind = step.relevant[row, column].unsqueeze(1)
        # `cosine_hinge` divides by the number of pairs; the loss of a step is per datapoint.
        mean = losses.cosine_hinge(scores, kind, ~kind, self.settings.gamma)
        return mean * len(scores) / len(step.datapoint_at)

    def end_epoch(self, epoch: int) -> dict[str, float]:
        """With `select: valid`, the figures on valid; keeps the weights of the best epoch.

        Of equally good epochs it keeps the last.
        """
        if self.settings.select != "valid":
            return {}
        figures = self.validate(self.model)
        merit = sum(figures.values())
        if self.best is None or merit >= self.best[0]:
            self.best = merit, weights_of(self.model)
        return {f"valid_{name}": value for name, value in figures.items()}

    def finish(self) -> None:
        """Gives the model the weights of the best epoch."""
        if self.best is not None:
            self.model.load_state_dict(self.best[1])

    def anchor_table(self) -> str:
        return "train"

    def state(self) -> tuple[dict[str, Tensor], dict]:
        held = {} if self.held is None else {"held": self.held}
        if self.best is None:
            return held, {}
        best = {f"best/{n}": t for n, t in self.best[1].items()}
        return best | held, {"merit": self.best[0]}

    def load_state(self, tensors: dict[str, Tensor], facts: dict) -> None:
        if (held := tensors.pop("held", None)) is not None:
            self.held = held.to(self._device())
        if facts:
            self.best = facts["merit"], {n.removeprefix("best/"): t for n, t in tensors.items()}


def _marked(labels: np.ndarray, picks: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(A, U) bool: which of the sorted `labels` (U,) each row of `picks` (A, k) holds."""
    out = np.zeros((len(picks), len(labels)), bool)
    rows = np.broadcast_to(np.arange(len(picks))[:, None], picks.shape)
    out[rows[mask], np.searchsorted(labels, picks[mask])] = True
    return out

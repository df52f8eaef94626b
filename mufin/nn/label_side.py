"""The part of the classifier scores that depends on labels only, computed once per label.

A_C and the layers that replace it in variants have the same three methods: `adapted` (x^{2,l} of
aligned pairs), `label_side` (computes this part for labels) and `scores` (uses it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class LabelSide(ABC):
    """What the scores need of U labels. The first axis of every field is the labels."""

    w: Tensor  # (U, D): the classifiers

    def __getitem__(self, index: Tensor) -> Self:
        """The labels `index`: (K,), or (B, K) for K labels of each of B datapoints."""
        return type(self)(*(t[index] for t in self.tensors()))

    def tensors(self) -> list[Tensor]:
        """All fields, in the order of the constructor's arguments."""
        return [getattr(self, f.name) for f in fields(self)]

    @property
    def shared(self) -> bool:
        """Whether all datapoints are scored against the same labels, or each against its own."""
        return self.w.dim() == 2

    @abstractmethod
    def numbers(self, own: bool) -> int:
        """Numbers that `scores` holds in memory per pair of a datapoint and a label.

        `own`: each datapoint has its own labels.
        """

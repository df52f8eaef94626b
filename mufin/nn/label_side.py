"""The part of the classifier scores that depends on labels alone, computed once per label.

Every A_C has three methods that share it: `adapted` (x^{2,l} of aligned pairs), `label_side` and `scores`.
"""

from __future__ import annotations

from dataclasses import fields

from torch import Tensor


class LabelSide:
    """What the scores need of U labels. Every field of a subclass is a tensor whose first axis is the labels."""

    w: Tensor

    def __getitem__(self, index: Tensor) -> LabelSide:
        """The labels `index`: (K,), or (B, K) where each datapoint has labels of its own."""
        return type(self)(*(t[index] for t in self.tensors()))

    def tensors(self) -> list[Tensor]:
        return [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]

    @property
    def shared(self) -> bool:
        """Whether all datapoints are scored against the same U labels; else each against its own K."""
        return self.w.dim() == 2

    def numbers(self, own: bool) -> int:
        """Numbers held per pair of a datapoint and a label; `own`: where each datapoint has labels of its own."""
        raise NotImplementedError

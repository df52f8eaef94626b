"""How much the vectors of Module I are alike, and a warning where all have become nearly the same.

With few labels per batch, the hinge on the hardest negatives can move all vectors to one point,
where its loss is that of a constant map: about gamma times positives times negatives.
"""

from __future__ import annotations

import sys

from torch import Tensor

from mufin.errors import sentence
from mufin.training.curves import Curve

COLUMN = "squared_mean"  # of the curve of Module I
MOST = 0.9


def squared_mean(vectors: Tensor) -> Tensor:
    """|mean z|^2 of the unit vectors z in `vectors` (U, D), a number in [0, 1].

    It is the mean cosine of two rows drawn at random: 0 where they point in all directions, 1 where
    all are the same. Zero rows, of products without any descriptor, do not count.
    """
    vectors = vectors.detach()
    count = vectors.any(1).sum().clamp_min(1)
    return (vectors.sum(0) / count).square().sum()


class ContractionWarning:
    """Warns on stderr, once, where `squared_mean` of an epoch is above 0.9 and does not fall.

    Called with the curve of a member after each epoch. The first epoch alone is not judged, unless
    it is the last: encoders with random weights can start there and leave.
    """

    def __init__(self, loss: str, epochs: int, prints: bool = True):
        self.loss, self.epochs, self.prints = loss, epochs, prints

    def __call__(self, curve: Curve) -> None:
        values = [row[COLUMN] for row in curve]
        for epoch, value in enumerate(values, 1):
            judged = epoch == self.epochs or epoch > 1 and value >= values[epoch - 2]
            if self.prints and value > MOST and judged:
                print(sentence(self._said(epoch, value)), file=sys.stderr, flush=True)
                self.prints = False

    def _said(self, epoch: int, value: float) -> str:
        remedy = "lower pretrain.lr"
        if self.loss == "triplet":
            remedy = "set pretrain.loss: soft_triplet or softmax, or pretrain.hard_negatives: false"
        return (
            f"pretrain: at epoch {epoch} the mean of the unit vectors has the squared length "
            f"{value:.3f} (1: all are the same), so Module I tells few products apart; {remedy}"
        )

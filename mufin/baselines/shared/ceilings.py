"""What could be learnt on the built-in sample: a softmax on the generator's own attributes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mufin.baselines.shared.bilinear_softmax import BilinearSoftmax, Penalties, fitted
from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.corpus.sample_attributes import VALUES, Attributes
from mufin.ragged import Lists
from mufin.ranking.mix import best_on_valid
from mufin.ranking.order import Ranking, top

ATTRIBUTES = ("kind", "motif", "house")  # colour and size do not improve valid
WANTED = ("motif", "house")  # a label may want others than its own, which no title or picture tells
FREE_PENALTIES = (0.1, 0.3, 1.0, 3.0)
DEFAULT = 1.0  # where there is no valid datapoint to choose by

Known = dict[str, np.ndarray]  # attribute -> (n,) bool


def ceiling(task: Task, known: Callable[[Attributes], Known]) -> Predict:
    """Trains on the attributes that are `known` of each datapoint, and predicts with them.

    s(p, l) = a_p . (W b_l + e_l) + c_l. a_p has one column per value of kind, motif and house, and
    one per attribute for "unknown". b_l has all attributes of the label, whatever the datapoints
    have: a method may infer them from the label's train datapoints. So the rows err on the high
    side. e_l is free for motif and house, whose wanted values are hidden. The penalty of e is the
    best on valid (P@1 + P@5 + R@10). Raises MufinError if the data are not the built-in sample.
    """
    sides = task.attributes()
    asked = {name: one_hot(sides[name].codes, known(sides[name])) for name in task.excluded}
    labels = one_hot(sides["labels"].codes)
    model = chosen(asked, labels, task)
    return lambda split: ranked(model.scores(asked[split]), task.excluded[split])


def chosen(asked: dict[str, np.ndarray], labels: np.ndarray, task: Task) -> BilinearSoftmax:
    """The model of `asked` (per split, (n, A)) whose penalty of the free rows is best on valid."""
    penalties = FREE_PENALTIES if len(asked["valid"]) else (DEFAULT,)
    models = [
        fitted(asked["train"], labels, task.truth["train"], free_columns(), Penalties(free=free))
        for free in penalties
    ]
    return best_model(models, asked["valid"], task)


def best_model(models: list[BilinearSoftmax], asked: np.ndarray, task: Task) -> BilinearSoftmax:
    """The best of `models` on valid, whose datapoints have the attributes `asked` (n, A)."""

    def labels_of(model: BilinearSoftmax) -> np.ndarray:
        return ranked(model.scores(asked), task.excluded["valid"])[0]

    return best_on_valid(models, labels_of, task.truth["valid"], None)[0]


def one_hot(codes: dict[str, np.ndarray], known: Known | None = None) -> np.ndarray:
    """(n, A) float32: one column per value of each of `ATTRIBUTES`, and one for "unknown" each.

    All are known without `known`.
    """
    blocks = []
    for name in ATTRIBUTES:
        there = np.ones(len(codes[name]), bool) if known is None else known[name]
        place = np.where(there, codes[name], VALUES[name])
        blocks.append(np.eye(VALUES[name] + 1, dtype=np.float32)[place])
    return np.concatenate(blocks, 1)


def free_columns() -> np.ndarray:
    """(A,) bool: the columns of `one_hot` for which labels have free weights."""
    return np.concatenate([np.full(VALUES[n] + 1, n in WANTED) for n in ATTRIBUTES])


def ranked(scores: np.ndarray, excluded: Lists) -> Ranking:
    """The `WIDTH` best labels by `scores` (n, L), without the filter pairs."""
    return top(np.broadcast_to(np.arange(scores.shape[1]), scores.shape), scores, excluded, WIDTH)

"""The ceiling of the built-in sample: what title and pictures together tell, read without error."""

from __future__ import annotations

from mufin.baselines.shared.ceilings import ceiling
from mufin.baselines.shared.task import Predict, Task


def baseline(task: Task, seed: int) -> Predict:
    """A bilinear softmax on the kind, motif and house of the generator, trained on train.

    It knows of a datapoint what its title tells or one of its pictures shows: the motif is unknown
    where there is no picture and the title does not name it, the house where there is no title. So
    it is what a method would get that reads both without error and learns from train as well as
    this softmax. It is no upper bound in theory: a better learner of the same attributes may pass
    it, up to `best_attainable` in data/raw/source.json. Nothing is drawn, so `seed` changes
    nothing. Raises MufinError if the data are not the built-in sample.
    """
    return ceiling(task, lambda sides: {n: sides.told[n] | sides.shown[n] for n in sides.codes})

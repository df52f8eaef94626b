"""A rival's settings: the published ones first, then a few others, chosen on valid.

Every rival tries the same number of settings, so that none is tuned more than another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mufin.baselines.shared.task import Predict, Task
from mufin.metrics import precision_at_k

BUDGET = 4  # settings per rival, the published ones included

Settings = Mapping[str, Any]  # keyword arguments of the rival's training function


@dataclass(frozen=True, slots=True)
class Tuned:
    """The model of the chosen settings: a `Predict` that also says how it was chosen.

    `choice` has `published` and `chosen` (settings), and `tried`: for each of the settings, in
    order, its `settings`, its figures on `valid` in percent, and the `seconds` that it took. Where
    valid has no relations, `tried` is empty and `reason` says so.
    """

    predict: Predict
    choice: dict[str, Any]

    def __call__(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        return self.predict(split)


def best(
    task: Task, seed: int, settings: Sequence[Settings], train: Callable[..., Predict]
) -> Tuned:
    """The model with the largest P@1 + P@5 on valid, the first of equals.

    `settings[0]` are the published ones, so that they win a tie. `train(task, seed, **settings)`
    trains on train alone. The model of the best settings is kept and not trained again. Without
    relations in valid, only the published settings are trained.
    """
    choice: dict[str, Any] = {"published": dict(settings[0]), "chosen": dict(settings[0])}
    if not len(_relations(task)):
        reason = "valid has no relations to choose by: the published settings"
        return Tuned(train(task, seed, **settings[0]), choice | {"tried": [], "reason": reason})
    tried: list[dict[str, Any]] = []
    most, model = -1.0, None
    for some in settings:
        start = time.perf_counter()
        candidate = train(task, seed, **some)
        figures = _merit(candidate, task)
        seconds = round(time.perf_counter() - start, 2)
        tried.append({"settings": dict(some), "valid": figures, "seconds": seconds})
        # rounded, so that a tie is not broken by the last bit of a sum
        if (merit := round(sum(figures.values()), 3)) > most:
            most, model, choice["chosen"] = merit, candidate, dict(some)
    assert model is not None
    return Tuned(model, choice | {"tried": tried})


def _relations(task: Task) -> np.ndarray:
    """The labels of all pairs of valid that count: relevant, and no filter pairs."""
    return task.truth["valid"].minus(task.excluded["valid"]).values


def _merit(predict: Predict, task: Task) -> dict[str, float]:
    """P@1 and P@5 on valid, in percent."""
    labels, _ = predict("valid")
    truth, excluded = task.truth["valid"], task.excluded["valid"]
    return {f"P@{k}": round(precision_at_k(labels, truth, k, excluded), 4) for k in (1, 5)}

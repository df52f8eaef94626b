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
from mufin.ragged import is_in

BUDGET = 4  # settings per rival, the published ones included

Settings = Mapping[str, Any]  # keyword arguments of the rival's training function


@dataclass(frozen=True, slots=True)
class Tuned:
    """The model of the chosen settings: a `Predict` that also says how it was chosen.

    `choice` has `published` and `chosen` (settings), and `tried`: for each of the settings, in
    order, its `settings`, its figures on `valid` in percent, its `lead` over the published ones
    with the `standard_error` of the lead, and the `seconds` that it took. Where valid is too small
    to choose by, `tried` is empty and `reason` says so.
    """

    predict: Predict
    choice: dict[str, Any]

    def __call__(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        return self.predict(split)


def best(
    task: Task, seed: int, settings: Sequence[Settings], train: Callable[..., Predict]
) -> Tuned:
    """The model with the largest P@1 + P@5 on valid, where it clearly beats the published.

    `settings[0]` are the published ones. Others take their place only with a lead of more than the
    standard error of the paired difference over datapoints: on a few hundred datapoints, the best
    of several settings is often the luckiest. Of equals, the first is chosen.
    `train(task, seed, **settings)` trains on train alone; the chosen model is kept and not trained
    again. With fewer than two datapoints or no relation in valid, only the published settings are
    trained.
    """
    choice: dict[str, Any] = {"published": dict(settings[0]), "chosen": dict(settings[0])}
    truth = task.truth["valid"].minus(task.excluded["valid"])
    model = None
    if len(truth) < 2 or not len(truth.values):
        reason = f"valid has {len(truth)} datapoints and {len(truth.values)} relations: too few"
        return Tuned(train(task, seed, **settings[0]), choice | {"tried": [], "reason": reason})
    tried: list[dict[str, Any]] = []
    for some in settings:
        start = time.perf_counter()
        candidate = train(task, seed, **some)
        hits = is_in(candidate("valid")[0][:, :5], truth)  # (n, 5)
        merits = 100 * hits[:, 0] + 20 * hits.sum(1)  # (n,) P@1 + P@5 of each datapoint
        if model is None:
            model, published, most = candidate, merits, 0.0
        gain = merits - published
        lead, error = float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
        if lead > max(error, most) + 1e-9:  # a gain on one datapoint is equal to its error
            model, most, choice["chosen"] = candidate, lead, dict(some)
        figures = {"P@1": 100 * hits[:, 0].mean(), "P@5": 20 * hits.sum(1).mean()}
        tried.append(
            {
                "settings": dict(some),
                "valid": {name: round(float(value), 4) for name, value in figures.items()},
                "lead": round(lead, 4),
                "standard_error": round(error, 4),
                "seconds": round(time.perf_counter() - start, 2),
            }
        )
    assert model is not None
    return Tuned(model, choice | {"tried": tried})

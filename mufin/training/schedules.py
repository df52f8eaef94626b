"""The learning-rate schedules, as functions of the step alone."""

from __future__ import annotations

import math


def rate_factor(schedule: str, step: int, total: int, warmup: int) -> float:
    """The factor on the peak learning rate at `step` (from 0) of `total` steps.

    `schedule` is one_cycle or linear. The warm-up is at most a tenth of the run. The factor depends
    on these numbers alone, so a checkpoint needs no state of the schedule.
    """
    warmup = min(warmup, total // 10)
    return (linear if schedule == "linear" else one_cycle)(step, total, warmup)


def one_cycle(step: int, total: int, warmup: int) -> float:
    """torch's OneCycleLR with its defaults and pct_start = warmup / total (MUFIN Sec. 4).

    The first `warmup` steps rise on a cosine from 1/25 to 1, both included; the others fall on a
    cosine to 1e-4/25. With a warm-up of 0 or 1, which torch refuses, the first step is the peak.
    """
    start, end = 1 / 25, 1e-4 / 25
    peak = max(warmup - 1, 0)  # the step with factor 1; steps are counted from 0
    if step < peak:
        return start + (1 - start) * (1 - math.cos(math.pi * step / peak)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (step - peak) / max(total - 1 - peak, 1))) / 2


def linear(step: int, total: int, warmup: int) -> float:
    """From 0 to 1 in `warmup` steps, then down to 0 after `total` steps, both on a line.

    The schedule of the released code of MUFIN. With a warm-up its first step has the rate 0.
    """
    if step < warmup:
        return step / warmup
    return (total - step) / (total - warmup)

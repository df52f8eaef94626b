"""What can be done with the relations: which splits, which profile, and about how long it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from mufin.catalog_params import Curate
from mufin.corpus import splits
from mufin.errors import MufinError
from mufin.ragged import Lists

# Measured with profile small-catalog on 2 cores (docs/real-products.md): 204 s and 1.5 GB for 1,367
# train datapoints and 2,187 pictures.
MEASURED_SECONDS, MEASURED_GB, MEASURED_TRAIN = 204.0, 1.5, 1367
# Counted for an H200 in params/mm-amazontitles-300k.yaml: 4 to 6 hours for these.
COUNTED_HOURS, COUNTED_TRAIN = 6.0, 586_781
SMALL = 20_000  # train datapoints of profile small-catalog, at most
RIDGE_BYTES = 16  # per pair of train datapoints: the linear system of the title ridge, twice
FEW = 100  # train datapoints, below which figures say little


@dataclass(frozen=True, slots=True)
class Trial:
    """What a split leaves."""

    name: str
    train: int  # datapoints
    valid: int
    test: int
    labels: int
    problem: str = ""  # why it leaves nothing

    @property
    def works(self) -> bool:
        return bool(self.train and self.test)


def trial(name: str, make: Callable[[], splits.Splits]) -> Trial:
    """The datapoints and labels of a split."""
    try:
        made = make()
    except MufinError as error:
        return Trial(name, 0, 0, 0, 0, str(error))
    sizes = {part: len(rows.product) for part, rows in made.rows.items()}
    return Trial(name, sizes["train"], sizes["valid"], sizes["test"], len(made.labels))


def cold_and_warm(lists: Lists, s: Curate, first_label: int | None) -> list[Trial]:
    """Both splits of the relations, as the stage curate makes them.

    Where labels are no products, they are the numbers from `first_label` on, and a warm split is
    the same as a cold one.
    """
    if first_label is not None:
        rng = np.random.default_rng([s.seed, 0])
        cold = partial(splits.cold_split, lists, s.test, s.valid, rng, first_label)
        return [trial("cold", cold)]

    def tried(name: str, make: Callable) -> Trial:
        rng = np.random.default_rng([s.seed, 0])
        return trial(name, lambda: make(lists, s.test, s.valid, rng))

    return [tried("cold", splits.cold_split), tried("warm", splits.warm_split)]


def suited(trials: list[Trial]) -> Trial | None:
    """The split to take: cold where it leaves at least half of what another one does."""
    working = [t for t in trials if t.works]
    most = max((t.train + t.test for t in working), default=0)
    order = {"cold": 0, "time": 1, "warm": 2}
    good = [t for t in working if 2 * (t.train + t.test) >= most]
    return min(good, key=lambda t: order[t.name], default=None)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run takes, about."""

    profile: str
    why: str
    cost: str


def estimate(train: int, more: bool) -> Estimate:
    """Profile, time and memory for so many train datapoints; `more`: there are more than these."""
    at_least = "at least " if more else ""
    if train <= SMALL and not more:
        share = train / MEASURED_TRAIN
        minutes = max(MEASURED_SECONDS * max(share, 0.2) / 60, 1.0)
        memory = memory_gb(train)
        return Estimate(
            "small-catalog",
            f"{train:,} train datapoints; it is for up to {SMALL:,}, on a CPU",
            f"about {_duration(minutes)} on 2 cores and {memory:.1f} GB of memory"
            f" (scaled from {MEASURED_SECONDS:.0f} s and {MEASURED_GB} GB measured on 2,191 "
            "products)",
        )
    if train <= SMALL:
        return Estimate(
            "small-catalog or paper",
            f"at least {train:,} train datapoints; small-catalog is for up to {SMALL:,}",
            "unknown, as only a part of the products was read",
        )
    hours = COUNTED_HOURS * train / COUNTED_TRAIN
    return Estimate(
        "paper",
        f"{at_least}{train:,} train datapoints; small-catalog is for up to {SMALL:,}",
        f"{at_least}{_duration(60 * hours)} on a GPU such as an H200 (scaled from a count of "
        "operations, not measured); too slow without a GPU",
    )


def memory_gb(train: int) -> float:
    """GB of memory that profile small-catalog takes, about, for so many train datapoints."""
    return MEASURED_GB + (RIDGE_BYTES * train**2) / 1e9


def _duration(minutes: float) -> str:
    if minutes < 90:
        whole = max(round(minutes), 1)
        return f"{whole} minute{'s' if whole > 1 else ''}"
    return f"{minutes / 60:.1f} hours"

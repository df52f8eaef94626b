"""What the interactions are: how many name a product, the baskets, the times, the relations."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mufin.catalog_params import Curate
from mufin.corpus import behaviour, splits
from mufin.corpus.matching import Unknown
from mufin.corpus.relations import Relations
from mufin.errors import MufinError
from mufin.inspection.figures import Figures
from mufin.inspection.reading import Reading

LIMIT = 2_000_000  # interactions that are read


@dataclass(slots=True)
class Behaviour:
    """The interactions that were read, with products of the catalog in place of ids."""

    rows: int = 0
    ended: bool = False  # whether these are all
    unknown: Unknown | None = None
    item: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    basket: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    time: np.ndarray = field(default_factory=lambda: np.zeros(0))  # NaN for none
    weight: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    relations: Relations | None = None
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))  # also of unknown products
    problem: str = ""

    @property
    def timed(self) -> bool:
        """Whether a split by time can be tried."""
        return len(self.times) > 1 and bool(self.times.min() < self.times.max())

    def days(self) -> str:
        """` from 2024-01-01 to 2024-06-30`, '' without times."""
        if not len(self.times):
            return ""
        try:
            first, last = (
                datetime.fromtimestamp(float(t), UTC).date()
                for t in (self.times.min(), self.times.max())
            )
        except (OverflowError, ValueError, OSError):
            return ""
        return f" from {first} to {last}"

    def sizes(self) -> np.ndarray:
        """(baskets,) how many rows each basket has."""
        return np.unique(self.basket, return_counts=True)[1]


def behaviour_of(
    reading: Reading, figures: Figures, curate: Curate, limit: int = LIMIT
) -> Behaviour:
    """Reads up to `limit` interactions, and relates the products by them as `curate` says."""
    import polars as pl

    uids = figures.uids
    assert uids is not None
    out, parts = Behaviour(unknown=Unknown(lambda: iter([uids]))), []
    times: list[np.ndarray] = []
    try:
        for batch in reading.interactions(limit):
            ids = pl.Series("item", batch.column("item")).fill_null("")
            product = figures.find(ids)
            out.rows += len(ids)
            assert out.unknown is not None
            out.unknown.add(ids.filter(pl.Series(product == -1)))
            there = product >= 0
            columns = (batch[name].to_numpy(zero_copy_only=False) for name in ("basket", "time"))
            basket, time = columns
            weight = batch["weight"].to_numpy(zero_copy_only=False)
            times.append(time[np.isfinite(time)])
            parts.append((product[there], basket[there], time[there], weight[there]))
    except MufinError as error:
        out.problem = str(error)
    out.ended = not out.problem and out.rows < limit
    if not parts:
        return out
    out.times = np.concatenate(times)
    item, basket, time, weight = (np.concatenate(column) for column in zip(*parts))
    out.item, out.basket = item.astype(np.int32), basket
    out.time, out.weight = time.astype(np.float64), weight.astype(np.float32)
    out.relations = _related(out, figures, curate)
    return out


def _related(
    found: Behaviour, figures: Figures, s: Curate, start: float = -np.inf, end: float = np.inf
) -> Relations:
    every = start == -np.inf and end == np.inf
    keep = np.ones(len(found.item), bool)
    if not every:
        keep = (found.time >= start) & (found.time < end)
    batch = (found.item[keep], found.basket[keep], found.time[keep], found.weight[keep])
    with tempfile.TemporaryDirectory(prefix="mufin-inspect-") as folder:
        scratch = Path(folder) / "baskets"
        batches = iter([batch] if keep.any() else [])
        return behaviour.relations_of(batches, figures.products, s.interactions, scratch, 1)[0]


def time_split(found: Behaviour, figures: Figures, s: Curate) -> splits.Splits:
    """The split by time; raises MufinError if it leaves nothing."""
    valid, test = behaviour.cuts(found.times.copy(), s.test, s.valid)
    limits = {"train": (-np.inf, valid), "valid": (valid, test), "test": (test, np.inf)}
    periods = {
        name: _related(found, figures, s, start, end).lists for name, (start, end) in limits.items()
    }
    return splits.time_split(periods)

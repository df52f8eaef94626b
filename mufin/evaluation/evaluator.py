"""All metrics of predictions on a split, and their breakdown by popularity and category."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mufin import metrics
from mufin.artifacts.curated import Curated, Split

KS, RECALL_KS, AUC_K = (1, 3, 5), (10, 20, 50, 100), 100
# metrics/evaluate.json: few numbers, for `dvc metrics diff`; of valid those that choose the mix
SUMMARY = {
    "test": ("P@1", "P@5", "PSP@5", "R@10", "R@100", "AUC@100"),
    "valid": ("P@1", "P@5", "R@10"),
}
TABLE = ("P@1", "P@5", "nDCG@5", "R@10", "R@100", "PSP@5", "AUC@100", "tail R@10")  # printed


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Computes all metrics of predictions, in percent, without the filter pairs."""

    splits: dict[str, Split]  # valid and test
    frequency: np.ndarray  # (L,) train datapoints per label
    num_train: int
    propensity: tuple[float, float]  # A and B of PSP@k
    tail: int  # tail labels have fewer train datapoints than this

    @classmethod
    def of(cls, data: Curated, propensity: tuple[float, float], tail: int) -> Evaluator:
        """An evaluator for the curated splits."""
        splits = {name: data.splits[name] for name in ("valid", "test")}
        frequency = np.bincount(data.train.labels.values, minlength=len(data.labels))
        return cls(splits, frequency, len(data.train), propensity, tail)

    @property
    def tail_labels(self) -> np.ndarray:
        """The ids of the tail labels."""
        return np.flatnonzero(self.frequency < self.tail)

    def metrics(self, predictions: np.ndarray, split: str) -> dict[str, float]:
        """P, nDCG, PSP and PSnDCG at 1, 3 and 5, R@k, AUC@100 and "tail R@10", to four digits.

        `predictions` (n, width) are label ids, best first, -1 = none.
        """
        truth, excluded = self.splits[split].labels, self.splits[split].excluded
        out = metrics.evaluate(
            predictions,
            truth,
            excluded,
            self.frequency,
            self.num_train,
            self.propensity,
            KS,
            RECALL_KS,
            AUC_K,
            self.tail_labels,
        )
        return rounded(out)

    def recall_by_popularity(self, predictions: np.ndarray) -> np.ndarray:
        """(5,) the part of R@10 on test by each popularity bin, rare first (MUFIN Fig. 4)."""
        test = self.splits["test"]
        bins = metrics.popularity_bins(self.frequency, test.labels, bins=5)
        return metrics.recall_by_bin(predictions, test.labels, test.excluded, bins, 10)

    def precision_by_category(
        self, predictions: np.ndarray, category: np.ndarray
    ) -> dict[str, tuple[int, float]]:
        """{category: (datapoints, P@5)} on test (MUFIN Table 6).

        `category` (n,) str is that of each test datapoint.
        """
        test = self.splits["test"]
        return metrics.precision_by_category(predictions, test.labels, test.excluded, category, 5)


def categories_of(paths: list[list[str]]) -> np.ndarray:
    """(n,) object: the category of each product, from its category path.

    It is the name on the first level where paths differ, '' for a path that ends before it.
    """
    for level in range(max(map(len, paths), default=0)):
        names = [path[level] if level < len(path) else "" for path in paths]
        if len(set(names) - {""}) > 1:
            return np.array(names, dtype=object)
    return np.array([path[0] if path else "" for path in paths], dtype=object)


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Figures to four digits, as metrics files hold them."""
    return {name: round(float(value), 4) for name, value in figures.items()}

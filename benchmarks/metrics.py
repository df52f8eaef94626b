"""All metrics of a test split, beside napkinXC's metrics of the same predictions.

python -m benchmarks.metrics --out benchmarks/results/metrics.json

napkinXC computes P@1-5, nDCG@1-5, PSP@1-5, PSnDCG@1-5 and R@1-100; ours are these at the k of the
metrics files, AUC@100 and the recall of tail labels. The seconds to turn arrays into the lists that
napkinXC reads are not counted.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Callable

import numpy as np
import typer

from benchmarks.timing import interleaved, tell
from mufin import metrics
from mufin.evaluation.evaluator import AUC_K, KS, RECALL_KS
from mufin.ragged import Lists, offsets_of

PROPENSITY = (0.6, 2.6)
TAIL = 10  # tail labels have fewer train datapoints


NAPKINXC = "napkinXC, 16 of them"


def main(
    datapoints: int = 260_000,
    labels: int = 303_000,
    width: int = 100,
    repeats: int = 3,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Seconds of each way, and the largest difference of the metrics that both compute."""
    predictions, truth, counts = problem(datapoints, labels, width)
    settings = (counts, 2 * datapoints, PROPENSITY, KS, RECALL_KS, AUC_K)
    tail = np.flatnonzero(counts < TAIL)
    weights = metrics.inverse_propensity(*settings[:2], *PROPENSITY)
    true_lists = [row.tolist() for row in np.split(truth.values, truth.offsets[1:-1])]
    lists = predictions.tolist()

    def ours(excluded: Lists | None = None) -> dict[str, float]:
        return metrics.evaluate(predictions, truth, excluded, *settings, tail)

    def theirs() -> dict[str, float]:
        return by_napkinxc(true_lists, lists, weights)

    mine, reference = ours(), theirs()
    difference = max(abs(mine[name] - reference[name]) for name in reference)
    first = Lists(np.arange(datapoints + 1), np.maximum(predictions[:, 0], 0))
    ways: dict[str, Callable[[], object]] = {
        "ours, all 18 metrics": ours,
        "ours, with filter pairs": lambda: ours(first),  # one per datapoint
        NAPKINXC: theirs,
    }
    seconds = {
        name: statistics.median(values) for name, values in interleaved(ways, repeats).items()
    }
    tell(
        f"metrics of {datapoints} x {width} predictions over {labels} labels; largest difference "
        f"{difference:.1e} percentage points",
        {name: {"seconds": s, "ratio": seconds[NAPKINXC] / s} for name, s in seconds.items()},
        out,
    )


def by_napkinxc(
    truth: list[list[int]], predictions: list[list[int]], weights: np.ndarray
) -> dict[str, float]:
    """{metric: percent} of the metrics that napkinXC has."""
    from napkinxc import metrics as theirs  # installed with the extra `baselines`

    k = max(KS)
    columns = {
        "P": theirs.precision_at_k(truth, predictions, k),
        "nDCG": theirs.ndcg_at_k(truth, predictions, k),
        "PSP": theirs.psprecision_at_k(truth, predictions, weights, k),
        "PSnDCG": theirs.psndcg_at_k(truth, predictions, weights, k),
    }
    found = {f"{name}@{k}": 100 * column[k - 1] for name, column in columns.items() for k in KS}
    recall = theirs.recall_at_k(truth, predictions, max(RECALL_KS))
    return found | {f"R@{k}": 100 * recall[k - 1] for k in RECALL_KS}


def problem(n: int, labels: int, width: int) -> tuple[np.ndarray, Lists, np.ndarray]:
    """(n, width) int32 predictions, truth of 8.1 labels on average, and train counts per label.

    Half of the truth is predicted, on the first places more often.
    """
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 8.1, n), 100)
    values = (labels * rng.random(lengths.sum()) ** 2).astype(np.int64)  # some labels are popular
    pairs = np.unique(np.repeat(np.arange(n), lengths) * labels + values)  # distinct in each row
    rows, values = pairs // labels, (pairs % labels).astype(np.int32)
    truth = Lists(offsets_of(np.bincount(rows, minlength=n)), values)
    # Steps of up to labels // width: ids that are distinct within a row
    steps = rng.integers(1, labels // width, (n, width), dtype=np.int32)
    predictions = steps.cumsum(1, dtype=np.int32)
    predictions[rng.random((n, width)) < 0.02] = -1  # what a hit replaces below, or missing
    kept = np.flatnonzero(rng.random(len(rows)) < 0.5)
    place = (width * rng.random(len(kept)) ** 2).astype(np.int64)
    predictions[rows[kept], place] = values[kept]
    return _distinct(predictions), truth, rng.geometric(0.1, labels) - 1


def _distinct(predictions: np.ndarray) -> np.ndarray:
    """The same rows, where a label that comes again is -1, and -1 is at the end."""
    order = np.argsort(predictions, 1, kind="stable")
    ordered = np.take_along_axis(predictions, order, 1)
    again = np.zeros(predictions.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    missing = np.empty_like(again)
    np.put_along_axis(missing, order, again | (ordered < 0), 1)
    last = np.argsort(missing, 1, kind="stable")
    return np.take_along_axis(np.where(missing, -1, predictions), last, 1)


if __name__ == "__main__":
    typer.run(main)

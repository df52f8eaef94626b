"""How predictions are judged: metrics by split and method, by popularity and category, and the rows that need no model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import xc_metrics
from pipeline.artifacts import publish, read_json
from pipeline.baselines.popular import popular
from pipeline.baselines.ridge import TitleRidge
from pipeline.baselines.tfidf import nearest_datapoints_tfidf
from pipeline.inputs import Curated
from pipeline.params import Params
from pipeline.ragged import Lists
from pipeline.ranking import rank

KS, RECALL_KS, AUC_K = (1, 3, 5), (10, 20, 50, 100), 100


class Judge:
    """Knows the truth of every split; asks `xc_metrics` and nobody else."""

    def __init__(self, params: Params, data: Curated, products: pa.Table, curated: Path):
        self.params, self.data, self.products, self.curated = params, data, products, curated
        self.frequency = np.bincount(data.train.labels.values, minlength=len(data.labels))

    def facts(self) -> dict:
        """What every figure depends on: how the split was made, and its sizes."""
        return {"split": read_json(self.curated / "split.json")["split"], "labels": len(self.data.labels),
                "datapoints": {name: len(split) for name, split in self.data.splits.items()}}

    def metrics(self, predictions: np.ndarray, name: str) -> dict[str, float]:
        """All of METHOD's metrics of (n, width) label ids, -1 padded, in percent."""
        split, p = self.data.splits[name], self.params.evaluate
        out = xc_metrics.evaluate(predictions, split.labels, split.excluded, self.frequency, len(self.data.train),
                                  (p.propensity.a, p.propensity.b), ks=KS, recall_ks=RECALL_KS, auc_k=AUC_K)
        tail = np.flatnonzero(self.frequency < p.tail)
        out["tail R@10"] = xc_metrics.recall_of_labels(predictions, split.labels, split.excluded, tail, 10)
        return _rounded(out)

    def honest_rows(self, width: int, ridge: TitleRidge | None) -> dict:
        """The most popular labels, the labels of the 20 nearest train datapoints by TF-IDF, and the ridge where there is
        one: rows that need no network."""
        titles = np.array(self.products["title"].to_pylist(), dtype=object)
        train, out = self.data.train, {"popular": {}, "tfidf_datapoints": {}}
        for name in ("valid", "test"):
            split = self.data.splits[name]
            out["popular"][name] = popular(train.labels, len(self.data.labels), len(split), width, split.excluded)
            out["tfidf_datapoints"][name] = nearest_datapoints_tfidf(
                list(titles[train.product]), train.labels, list(titles[split.product]), len(self.data.labels),
                neighbours=20, k=width, excluded=split.excluded)
            if ridge is not None:
                scores = ridge.scores(list(titles[split.product]))
                every = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
                out.setdefault("ridge", {})[name] = rank(every, scores, scores, 1.0, split.excluded, width=width)
        return out

    def write_breakdowns(self, predictions: dict[str, np.ndarray], popularity: Path, categories: Path) -> None:
        """R@10 by popularity bin (Fig. 4) and P@5 by category (Table 6), on test, as CSV."""
        test = self.data.splits["test"]
        bins = xc_metrics.popularity_bins(self.frequency, test.labels, bins=5)
        rows = [(method, number + 1, round(value, 4)) for method, p in predictions.items()
                for number, value in enumerate(xc_metrics.recall_by_bin(p, test.labels, test.excluded, bins, 10))]
        write_csv(("method", "bin", "R@10"), rows, popularity)
        names = categories_of([self.products["category"][p].as_py() for p in test.product])
        rows = [(method, category, count, round(value, 4)) for method, p in predictions.items()
                for category, (count, value) in xc_metrics.precision_by_category(
                    p, test.labels, test.excluded, names, 5).items()]
        write_csv(("method", "category", "datapoints", "P@5"), rows, categories)

    def tell(self, report: dict) -> None:
        """A table for the person who waited."""
        names = ("P@1", "P@5", "nDCG@5", "R@10", "R@100", "PSP@5", "AUC@100", "tail R@10")
        print(f"test, {report['split']} split, {report['datapoints']['test']} datapoints, {report['labels']} labels")
        print(f"{'':24s}" + "".join(f"{n:>10s}" for n in names))
        for method, figures in report["test"].items():
            print(f"{method:24s}" + "".join(f"{figures[n]:10.2f}" for n in names))


def categories_of(paths: list[list[str]]) -> np.ndarray:
    """(n,) object: each path's name on the first level where the paths part ('' where it ends before)."""
    depth = max(map(len, paths), default=0)
    levels = [[path[level] if level < len(path) else "" for path in paths] for level in range(depth)]
    return np.array(next((names for names in levels if len(set(names) - {""}) > 1), levels[0] if levels else [""] * len(paths)),
                    dtype=object)


def judged(predictions: np.ndarray, truth: Lists, excluded: Lists, ks: tuple, recall_ks: tuple) -> dict[str, float]:
    """P@k and R@k alone, for questions without a train set."""
    out = {f"P@{k}": xc_metrics.precision_at_k(predictions, truth, k, excluded) for k in ks}
    return _rounded(out | {f"R@{k}": xc_metrics.recall_at_k(predictions, truth, k, excluded) for k in recall_ks})


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in figures.items()}


def write_csv(header: tuple, rows: list[tuple], path: Path) -> None:
    with publish(path) as scratch, open(scratch, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)

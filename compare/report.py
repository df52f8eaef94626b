"""The comparison and its analysis as one page: tables, breakdowns, cross-attention, classifiers, predictions, claims.

python -m pipeline.report
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from compare.rows import LEARNT, OF_MUFIN
from compare.table import LEAST, METRICS, best
from mufin import runtime
from mufin.artifacts.curated import Split, open_store, read_curated
from mufin.artifacts.files import publish, read_json, write_csv
from mufin.artifacts.tables import read_ranking, read_table
from mufin.corpus.descriptors import DescriptorStore
from mufin.errors import MufinError
from mufin.evaluation import breakdowns
from mufin.evaluation.evaluator import categories_of
from mufin.nn.assembly import load_members
from mufin.params import load_params
from mufin.ranking.label_index import load_index
from mufin.reporting import claims
from mufin.reporting.adaptation import Network
from mufin.reporting.page import render
from mufin.reporting.showcase import Catalog, classifiers, cross_attention, figures, predicted

CATEGORIES = 30  # shown by name; the rest together
FIRST = (
    "mufin",
    "alpha_1",
    *LEARNT,
    "ridge",
    "tfidf_datapoints",
    "popular",
    "text_only",
    "image_only",
    "module_1_bag",
)
BY_MODALITY = ("mufin", "text_only", "image_only", *LEARNT, "ridge", "tfidf_datapoints")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the comparison that has predictions: one array (n, width) a seed."""

    name: str
    title: str
    predictions: list[np.ndarray]
    seeds: list[int]


def main(
    curated: Path = Path("data/curated"),
    raw: Path = Path("data/raw"),
    precomputed: Path = Path("data/precomputed"),
    model: Path = Path("models/finetune"),
    index: Path = Path("models/index"),
    folder: Path = Path("data/compare"),
    compared: Path = Path("metrics/compare.json"),
    page: Path = Path("metrics/report.html"),
    metrics: Path = Path("metrics/report.json"),
    popularity: Path = Path("metrics/compare_popularity.csv"),
    categories: Path = Path("metrics/compare_categories.csv"),
    tsne: Path = Path("metrics/classifiers_tsne.csv"),
):
    """Write the page, and the CSVs that DVC's own plots draw."""
    if not compared.exists():
        raise MufinError(
            f"{compared} is missing, so there is nothing to report on; run `make compare` first"
        )
    params, data, table = load_params(), read_curated(curated), read_json(compared)
    products = read_table(curated / "products.parquet", "products")
    test, rows = data.splits["test"], _rows(table, folder, len(data.splits["test"]))
    frequency = np.bincount(data.train.labels.values, minlength=len(data.labels))
    with runtime.measured(metrics) as report:
        by_bin, by_category = _bins(rows, test, frequency), _categories(rows, test, products)
        network = Network(
            load_members(model, precomputed),
            open_store(precomputed, params),
            load_index(index, runtime.device()),
            params.evaluate.shortlist,
        )
        catalog = Catalog(products, data.labels, test, raw / "images")
        own = {
            r.name: r.predictions[r.seeds.index(params.seed) if params.seed in r.seeds else 0]
            for r in rows
        }
        pictures = _pictures(products, network.store)[test.product]
        titles = {r.name: r.title for r in rows}
        attention = cross_attention(network, catalog, own.get("mufin"))
        shown = classifiers(network, catalog)
        said = _claims(table, rows, by_bin, by_category, attention, shown)
        context = {
            "facts": _facts(table, products, data, params),
            "table": _table(table),
            "bins": by_bin,
            "categories": by_category,
            "pictures": _by_pictures(rows, test, pictures),
            "modalities": _by_modality(rows, test, products, pictures),
            "attention": attention,
            "classifiers": shown,
            "predictions": predicted(catalog, own, titles),
            "claims": said,
            "verdicts": claims.tally(said),
        }
        with publish(page) as scratch:
            scratch.write_text(render(context), encoding="utf-8")
        _write_plots(rows, by_bin, by_category, shown, popularity, categories, tsne)
        report |= {
            "items": len(test),
            "bytes": page.stat().st_size,
            "attention": figures(attention),
            "classifiers": {k: shown[k] for k in ("share", "chance")},
            "claims": {c.text: c.verdict for c in said},
        }


def _rows(table: dict, folder: Path, datapoints: int) -> list[Row]:
    """The rows that have predictions; raises MufinError where these are not of this test split."""
    out = []
    for row in table["rows"]:
        paths = [_place(folder, row["row"], seed) for seed in row["seeds"]]
        there = [
            (seed, read_ranking(path)) for seed, path in zip(row["seeds"], paths) if path.exists()
        ]
        if wrong := [p for _, p in there if len(p) != datapoints]:
            raise MufinError(
                f"{paths[0]} has {len(wrong[0])} predictions for {datapoints} test datapoints; it is of another "
                "split: run `make compare` again"
            )
        if there:
            seeds, predictions = zip(*there)
            out.append(Row(row["row"], row["title"], [_wide(p) for p in predictions], list(seeds)))
    return out


def _place(folder: Path, row: str, seed: int) -> Path:
    return folder / (
        f"mufin@{seed}/methods/{row}.parquet" if row in OF_MUFIN else f"{row}@{seed}/test.parquet"
    )


def _wide(predictions: np.ndarray, least: int = 10) -> np.ndarray:
    """At least `least` columns, -1 where there is no prediction."""
    missing = max(least - predictions.shape[1], 0)
    return np.pad(predictions, ((0, 0), (0, missing)), constant_values=-1)


def _chosen(rows: list[Row], names: tuple[str, ...], most: int) -> list[Row]:
    by_name = {row.name: row for row in rows}
    return [by_name[name] for name in names if name in by_name][:most]


def _facts(table: dict, products: pa.Table, data, params) -> dict:
    """What section 0 says: sizes, split, seeds."""
    pictures = np.array([len(keys) for keys in products["images"].to_pylist()])
    titles = np.array([bool(t) for t in products["title"].to_pylist()])
    train = data.train
    return {
        "split": table["split"],
        "labels": table["labels"],
        "datapoints": table["datapoints"],
        "seeds": table["seeds"],
        "products": len(products),
        "pictures": int(pictures.sum()),
        "per_product": float(pictures.mean()),
        "no_title": int((~titles).sum()),
        "no_picture": int((pictures == 0).sum()),
        "labels_each": len(train.labels.values) / max(len(train), 1),
        "source": params.download.source,
        "tail": params.evaluate.tail,
        "members": params.members,
        "rows": sum(bool(r["metrics"]) for r in table["rows"]),
        "failed": sum(not r["metrics"] for r in table["rows"]),
    }


def _table(table: dict) -> dict:
    """The comparison, grouped, the best of each column marked; figures are those of metrics/compare.json."""
    top, columns = best(table["rows"]), [*METRICS, *LEAST]
    groups: list[dict] = []
    for row in table["rows"]:
        if not groups or groups[-1]["name"] != row["group"]:
            groups.append({"name": row["group"], "rows": []})
        several = len(row["seeds"]) > 1
        cells = (
            [
                {
                    "text": f"{mean:.2f}",
                    "spread": f"{spread:.2f}" if several else "",
                    "best": mean == top[m],
                }
                for m in columns
                for mean, spread in [row["metrics"][m]]
            ]
            if row["metrics"]
            else []
        )
        groups[-1]["rows"].append(
            {
                "name": row["row"],
                "title": row["title"],
                "cells": cells,
                "failed": row["failed"],
                "seeds": len(row["seeds"]),
            }
        )
    return {
        "columns": [{"name": "ms" if m == "milliseconds" else m} for m in columns],
        "groups": groups,
    }


def _bins(rows: list[Row], test: Split, frequency: np.ndarray) -> dict | None:
    """Section 3: what each bin adds to R@10 (Fig. 4); `means` row -> five figures."""
    if not rows or not len(test):
        return None
    means = {
        r.name: breakdowns.over_seeds(
            [breakdowns.of_bins(p, test.labels, test.excluded, frequency) for p in r.predictions]
        )[0]
        for r in rows
    }
    edges = breakdowns.bin_frequencies(frequency, test.labels)
    every = np.stack(list(means.values()))
    return {
        "means": means,
        "edges": edges,
        "best": every.max(0),
        "top": float(every.sum(1).max()),
        "lines": [
            {"title": r.title, "values": means[r.name], "total": float(means[r.name].sum())}
            for r in rows
        ],
    }


def _categories(rows: list[Row], test: Split, products: pa.Table) -> dict | None:
    """Section 2: P@5 by category (Table 6); None where the products have no categories."""
    category = categories_of([products["category"][int(p)].as_py() for p in test.product])
    names, group = breakdowns.by_category(category, CATEGORIES)
    if not rows or len(names) < 2:
        return None
    figures = {r.name: _grouped(r, test, group, len(names))[:, 1] for r in rows}
    shown, counts = _chosen(rows, FIRST, 6), np.bincount(group, minlength=len(names))
    top = np.stack([figures[r.name] for r in shown]) if shown else np.zeros((1, len(names)))
    lines = [
        {
            "name": name,
            "count": int(counts[i]),
            "cells": [{"value": v, "best": v >= top[:, i].max()} for v in top[:, i]],
        }
        for i, name in enumerate(names)
    ]
    return {
        "names": names,
        "counts": counts,
        "figures": figures,
        "shown": shown,
        "lines": lines,
        "top": float(top.max()),
    }


def _grouped(row: Row, test: Split, group: np.ndarray, groups: int) -> np.ndarray:
    """(groups, 3) P@1, P@5, R@10, the mean over seeds."""
    return breakdowns.over_seeds(
        [
            breakdowns.of_groups(p, test.labels, test.excluded, group, groups)
            for p in row.predictions
        ]
    )[0]


def _pictures(products: pa.Table, store: DescriptorStore) -> np.ndarray:
    """(P,) pictures of each product: those that could be decoded, where the encoders ask for pictures at all."""
    if "image" in store.modalities:
        return np.diff(store.image_lists.offsets)
    return np.array([len(keys) for keys in products["images"].to_pylist()], np.int64)


def _by_pictures(rows: list[Row], test: Split, counts: np.ndarray) -> dict:
    return _groups(rows, test, breakdowns.by_pictures(counts), breakdowns.PICTURES)


def _by_modality(rows: list[Row], test: Split, products: pa.Table, pictures: np.ndarray) -> dict:
    has_title = np.array([bool(products["title"][int(p)].as_py()) for p in test.product], bool)
    return _groups(
        rows, test, breakdowns.by_modality(has_title, pictures > 0), breakdowns.MODALITIES
    )


def _groups(rows: list[Row], test: Split, group: np.ndarray, names: tuple[str, ...]) -> dict:
    """Section 4: P@1, P@5 and R@10 of groups of datapoints that are not empty."""
    shown, counts = _chosen(rows, BY_MODALITY, 4), np.bincount(group, minlength=len(names))
    figures = [_grouped(r, test, group, len(names)) for r in shown]
    return {
        "titles": [r.title for r in shown],
        "lines": [
            {"name": name, "count": int(counts[i]), "figures": [f[i] for f in figures]}
            for i, name in enumerate(names)
            if counts[i]
        ],
    }


def _claims(
    table: dict,
    rows: list[Row],
    by_bin: dict | None,
    by_category: dict | None,
    attention: dict,
    shown: dict,
) -> list[claims.Claim]:
    """Section 8, in the paper's order."""
    known = {
        r["row"]: claims.Row(r["title"], r["metrics"], len(r["seeds"]))
        for r in table["rows"]
        if r["metrics"]
    }
    titles, rivals = (
        {r.name: r.title for r in rows},
        [n for n in LEARNT if any(r["row"] == n for r in table["rows"])],
    )
    out = claims.compared(known, rivals)
    out.append(
        claims.in_all_bins(
            {n: m.tolist() for n, m in by_bin["means"].items()} if by_bin else {}, titles, rivals
        )
    )
    out.append(
        claims.in_most_categories(
            {n: f.tolist() for n, f in by_category["figures"].items()} if by_category else {},
            titles,
            rivals,
        )
    )
    return [
        *out,
        claims.moves_towards_relevant(attention["movement"]),
        claims.categories_cluster(shown["share"], shown["chance"]),
    ]


def _write_plots(
    rows: list[Row],
    by_bin: dict | None,
    by_category: dict | None,
    shown: dict,
    popularity: Path,
    categories: Path,
    tsne: Path,
) -> None:
    """The three CSVs of `dvc plots`; a file without rows has its header alone."""
    lines = (
        [
            (r.title, number + 1, round(float(v), 4))
            for r in rows
            for number, v in enumerate(by_bin["means"][r.name])
        ]
        if by_bin
        else []
    )
    write_csv(("row", "bin", "R@10"), lines, popularity)
    lines = (
        [
            (r.title, name, int(count), round(float(v), 4))
            for r in rows
            for name, count, v in zip(
                by_category["names"], by_category["counts"], by_category["figures"][r.name]
            )
        ]
        if by_category
        else []
    )
    write_csv(("row", "category", "datapoints", "P@5"), lines, categories)
    write_csv(("x", "y", "category"), shown["points"], tsne)


if __name__ == "__main__":
    runtime.run(main)

"""Predictions and all metrics, on test and valid: of MUFIN, of its parts, and of the reference rows.

python -m pipeline.evaluate
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from mufin import devices, runtime
from mufin.artifacts.curated import Curated, read_curated, read_labels, read_split
from mufin.artifacts.embeddings import read_embeddings
from mufin.artifacts.files import read_json, write_csv, write_json
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table, write_ranking
from mufin.corpus.descriptors import DescriptorStore
from mufin.evaluation.evaluator import SUMMARY, TABLE, Evaluator, categories_of
from mufin.evaluation.methods import (
    BySplit,
    Chosen,
    Scored,
    alpha_one_row,
    alpha_one_scores,
    choose,
    mixed_rows,
    module_one_rows,
    part_rows,
    rare_and_popular_row,
    unseen_labels,
)
from mufin.evaluation.reference import reference_rows
from mufin.nn.assembly import load_members
from mufin.params import Evaluate, Params, load_params
from mufin.ranking.label_index import load_index
from mufin.ranking.mix import Mix
from mufin.ranking.predictor import Predictor

WIDTH = 100  # predictions kept per datapoint, where L allows
SPLITS = ("valid", "test")


def main(home: runtime.Home = Path(".")):
    """Predict and evaluate; beta and the other weights are chosen on valid, never on test."""
    for line in evaluate(home):
        print(line)


def evaluate(home: Path) -> list[str]:
    """Write all that the stage leaves in `home`; returns the table for people."""
    params, data = load_params(home / "params.yaml"), read_curated(home / "data/curated")
    products = read_table(home / "data/curated/products.parquet", "products")
    propensity = (params.evaluate.propensity.a, params.evaluate.propensity.b)
    evaluator = Evaluator.of(data, propensity, params.evaluate.tail)
    with runtime.measured("evaluate", home) as report:
        predictor = _predictor(home, params)
        titles = np.array(products["title"].to_pylist(), dtype=object)
        scored, seconds = _scored(predictor, data, titles, _shortlist(params.evaluate, predictor))
        mixes = choose(
            scored["valid"],
            _sweep(params.evaluate),
            Mix(params.evaluate.beta),
            predictor.index.log_frequency,
        )
        predicts = "mufin_chosen" if params.evaluate.mix == "chosen" else "mufin"
        rows, facts = _mufin_rows(predictor, params, data, scored, mixes)
        embeddings = read_embeddings(home / "data/embeddings/pretrain.safetensors")
        shortlist = params.evaluate.shortlist
        rows |= module_one_rows(data, embeddings, shortlist, predictor.device, params.seed, WIDTH)
        rows |= _reference_rows(data, titles, predictor)
        figures = {
            row: {n: evaluator.metrics(by_split[n][0], n) for n in SPLITS}
            for row, by_split in rows.items()
        }
        report.items = sum(len(data.splits[n]) for n in SPLITS)
        report.facts = {n: {m: figures[predicts][n][m] for m in SUMMARY} for n in ("test", "valid")}
        report.costs["milliseconds_per_datapoint"] = round(
            1000 * seconds / max(len(data.splits["test"]), 1), 3
        )
        facts["unseen"] = {n: _unseen(predictor, home, n, params.evaluate) for n in SPLITS}
        write_json(
            {"chosen": asdict(mixes.chosen) | {"on_valid": mixes.on_valid}} | facts,
            home / "metrics/choices.json",
        )
        _write_tables(home, figures, rows, evaluator, products, data)
        write_json(
            asdict(mixes.chosen if predicts == "mufin_chosen" else mixes.fixed),
            home / "models/mix.json",
        )
        for row, by_split in rows.items():
            write_ranking(*by_split["test"], home / f"data/predictions/methods/{row}.parquet")
        write_ranking(*rows[predicts]["test"], home / "data/predictions/test.parquet")
    split = read_json(home / "data/curated/split.json")["split"]
    return [
        f"test, {split} split, {len(data.splits['test'])} datapoints, {len(data.labels)} labels",
        *_table(figures),
    ]


def _predictor(home: Path, params: Params) -> Predictor:
    device, precision = devices.device(), devices.precision()
    members = load_members(home / "models/finetune", Precomputed(home / "data/precomputed"))
    store = DescriptorStore(home / "data/precomputed", list(params.encoder.modalities), device)
    index = load_index(home / "models/index", device)
    return Predictor([member.network for member in members], store, index, device, precision)


def _shortlist(e: Evaluate, predictor: Predictor) -> int:
    return len(predictor.index) if e.candidates == "all" else e.shortlist


def _scored(
    predictor: Predictor, data: Curated, titles: np.ndarray, k: int
) -> tuple[dict[str, Scored], float]:
    """Both splits embedded and scored; the seconds of retrieval and scores on test, its datapoints embedded."""
    out, seconds = {}, 0.0
    for name in SPLITS:
        split = data.splits[name]
        datapoints = predictor.embed(split.product)
        start = time.perf_counter()
        candidates = predictor.candidates(
            datapoints, k, split.excluded, titles[split.product].tolist()
        )
        seconds = time.perf_counter() - start
        out[name] = Scored(split, datapoints, candidates)
    return out, seconds


def _sweep(e: Evaluate) -> list[Mix]:
    return [
        Mix(*weights)
        for weights in itertools.product(e.betas, e.frequency_weights, e.ridge_weights)
    ]


def _mufin_rows(
    predictor: Predictor, params: Params, data: Curated, scored: dict[str, Scored], mixes: Chosen
) -> tuple[dict[str, BySplit], dict]:
    """{row: {split: ranking}} of the fine-tuned networks, and what was learnt beside them."""
    e, frequency = params.evaluate, predictor.index.log_frequency
    predicts = mixes.chosen if e.mix == "chosen" else mixes.fixed
    rows = mixed_rows(scored, mixes, frequency, WIDTH)
    alpha_one = alpha_one_scores(predictor, scored)
    rows["alpha_1"] = alpha_one_row(scored, alpha_one, predicts, frequency, WIDTH)
    propensity = (e.propensity.a, e.propensity.b)
    rows["mufin_rare_and_popular"], learnt = rare_and_popular_row(
        predictor, scored, alpha_one, len(data.train), propensity, e.tail, e.beta, WIDTH
    )
    if "image" in params.encoder.modalities and len(params.encoder.modalities) > 1:
        rows |= part_rows(predictor, scored, _shortlist(e, predictor), predicts, frequency, WIDTH)
    return rows, {"popularity_mix": learnt}


def _reference_rows(data: Curated, titles: np.ndarray, predictor: Predictor) -> dict[str, BySplit]:
    out: dict[str, BySplit] = {}
    for name in SPLITS:
        split = data.splits[name]
        rows = reference_rows(
            data.train, split, titles, len(data.labels), predictor.index.ridge, WIDTH
        )
        for row, ranking in rows.items():
            out.setdefault(row, {})[name] = ranking
    return out


def _unseen(predictor: Predictor, home: Path, name: str, e: Evaluate) -> dict:
    folder = home / "data/curated/unseen"
    unseen, split = read_labels(folder / "labels.parquet"), read_split(folder / f"{name}.parquet")
    figures = unseen_labels(predictor, unseen, split, e.shortlist, e.beta, WIDTH)
    return {"labels": len(predictor.index), "unseen": len(unseen), "alpha_1": figures}


def _write_tables(
    home: Path,
    figures: dict[str, dict[str, dict[str, float]]],
    rows: dict[str, BySplit],
    evaluator: Evaluator,
    products: pa.Table,
    data: Curated,
) -> None:
    """All methods and metrics, and their breakdowns on test, as CSV files to read and to plot."""
    names = list(next(iter(figures.values()))["test"])
    table = [
        (row, n, *(by_split[n][m] for m in names))
        for row, by_split in figures.items()
        for n in ("test", "valid")
    ]
    write_csv(("method", "split", *names), table, home / "metrics/methods.csv")
    category = categories_of([products["category"][p].as_py() for p in data.splits["test"].product])
    bins, categories = [], []
    for row, by_split in rows.items():
        labels = by_split["test"][0]
        parts = enumerate(evaluator.recall_by_popularity(labels), 1)
        bins += [(row, number, round(value, 4)) for number, value in parts]
        by_category = evaluator.precision_by_category(labels, category).items()
        categories += [(row, name, count, round(value, 4)) for name, (count, value) in by_category]
    write_csv(("method", "bin", "R@10"), bins, home / "metrics/popularity.csv")
    write_csv(
        ("method", "category", "datapoints", "P@5"), categories, home / "metrics/categories.csv"
    )


def _table(figures: dict[str, dict[str, dict[str, float]]]) -> Iterable[str]:
    yield f"{'':24s}" + "".join(f"{m:>10s}" for m in TABLE)
    for row, by_split in figures.items():
        yield f"{row:24s}" + "".join(f"{by_split['test'][m]:10.2f}" for m in TABLE)


if __name__ == "__main__":
    runtime.run(main)

"""Predicts on test and valid, and computes all metrics: of MUFIN, its parts and reference rows.

One process:  python -m pipeline.evaluate
Several GPUs: MUFIN_PROCESSES=<n> python -m pipeline.evaluate, or torchrun
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mufin import devices, process_group, processes, runtime
from mufin.artifacts.contents import check_made_from
from mufin.artifacts.curated import Curated, read_curated, read_labels, read_split
from mufin.artifacts.embeddings import read_embeddings
from mufin.artifacts.files import artifact_json, write_csv, write_json
from mufin.artifacts.out_of_fold import read_out_of_fold
from mufin.artifacts.outfits import read_outfits
from mufin.artifacts.publication import publish
from mufin.artifacts.tables import read_table, write_ranking
from mufin.evaluation.breakdowns import FIGURES, of_known_and_new
from mufin.evaluation.chosen import Chosen, choose, choose_by_folds
from mufin.evaluation.evaluator import SUMMARY, TABLE, Evaluator, categories_of
from mufin.evaluation.methods import (
    BySplit,
    Method,
    alpha_one,
    mixed_methods,
    module_one_rows,
    part_rows,
    rankings,
    rare_and_popular,
    unseen_labels,
)
from mufin.evaluation.outfits import outfit_figures
from mufin.evaluation.reference import reference_rows, train_pairs_row
from mufin.evaluation.scored import Scored, scored
from mufin.params import Evaluate, Params, load_params
from mufin.ranking.mix import Mix
from mufin.ranking.mix_choice import Fold, out_of_fold_metrics
from mufin.ranking.mix_file import save_mix
from mufin.ranking.predictor import Predictor
from mufin.ranking.trained import load_predictor

WIDTH = 100  # predictions per datapoint, if there are so many labels
SPLITS = ("valid", "test")
Rows = Iterator[tuple[str, BySplit]]  # the rankings of each method, one at a time
Figures = dict[str, dict[str, dict[str, float]]]  # method, split, metric


def main(home: runtime.Home = Path(".")) -> None:
    """Predict and evaluate; beta and all other weights are chosen on valid, or on folds of train,
    never on test.
    """
    for line in evaluate(home):
        print(line)


def evaluate(home: Path) -> list[str]:
    """Writes all files of the stage below `home`; returns the lines of a table to print.

    In several processes each predicts for its share of the datapoints. All of them choose the same
    mix, as they get the same scores; the first computes the metrics and writes.
    """
    process_group.start(devices.device())
    params, data = load_params(home / "params.yaml"), read_curated(home / "data/curated")
    products = read_table(home / "data/curated/products.parquet", "products")
    outfits, e = read_outfits(home / "data/curated"), params.evaluate
    evaluator = Evaluator.of(data, (e.propensity.a, e.propensity.b), e.tail)
    with runtime.measured("evaluate", home) as report:
        predictor = load_predictor(
            home, params.encoder.modalities, devices.device(), devices.precision()
        )
        titles = np.array(products["title"].to_pylist(), dtype=object)
        k = _candidates(e, predictor)
        scores = {name: scored(predictor, data.splits[name], titles, k) for name in SPLITS}
        folds = _folds(home) if e.mix == "cross_validated" else None
        mixes = _chosen(folds, scores["valid"], e, predictor.index.log_frequency)
        predicts = "mufin" if e.mix == "fixed" else "mufin_chosen"
        methods, learnt = _mufin_methods(predictor, params, scores, mixes, evaluator)
        rows = itertools.chain(
            rankings(scores, methods),
            _part_rows(predictor, data, params, _predicting(mixes, e)),
            _module_one_rows(home, data, params, predictor),
            _reference_rows(data, titles, predictor, e.tfidf_pairs),
        )
        if process_group.rank() > 0:
            deque(rows, maxlen=0)  # its share of each row
            _unseen_labels(home, predictor, params)
            outfit_figures(predictor, outfits, e.beta)
            return []
        category = categories_of(
            [products["category"][p].as_py() for p in data.splits["test"].product]
        )
        with publish(home / "data/predictions") as folder:
            written = _Written(folder, predicts, evaluator, data, category)
            for row, by_split in rows:
                written.add(row, by_split)
            figures = written.figures
            report.items = sum(len(data.splits[split]) for split in SPLITS)
            report.facts = _summary(figures[predicts])
            test = scores["test"]
            cost = 1000 * test.seconds / max(test.made, 1)
            report.costs["milliseconds_per_datapoint"] = round(cost, 3)
            unseen = _unseen_labels(home, predictor, params)
            filled = outfit_figures(predictor, outfits, e.beta)
            write_json(filled, home / "metrics/fitb.json")
            _write_choices(home, scores, mixes, learnt, unseen, e)
            _write_folds(home, folds, mixes)
            written.write_tables(home)
    kind = artifact_json(home / "data/curated/split.json")["split"]
    sizes = f"{len(data.splits['test'])} datapoints, {len(data.labels)} labels"
    return [f"test, {kind} split, {sizes}", *_table(figures), *_outfit_lines(filled)]


def _candidates(e: Evaluate, predictor: Predictor) -> int:
    """The number of candidates per datapoint."""
    return len(predictor.index) if e.candidates == "all" else e.shortlist


def _folds(home: Path) -> list[Fold]:
    """The out-of-fold scores of train."""
    folder = home / "data/folds"
    check_made_from(folder, "data/curated", home / "data/curated")
    return [Fold.of(scores) for scores in read_out_of_fold(folder)]


def _chosen(
    folds: list[Fold] | None, valid: Scored, e: Evaluate, log_frequency: np.ndarray
) -> Chosen:
    """The mixes of the run: chosen on folds of train if there are any, else on valid."""
    sweep, fixed = _sweep(e), Mix(e.beta)
    if folds is None:
        return choose(valid, sweep, fixed, log_frequency)
    return choose_by_folds(folds, valid, sweep, fixed, log_frequency)


def _sweep(e: Evaluate) -> list[Mix]:
    """All mixes of the weights in the settings."""
    weights = itertools.product(
        e.betas, e.frequency_weights, e.ridge_weights, e.vote_weights, e.pair_weights
    )
    return [Mix(*five) for five in weights]


def _mufin_methods(
    predictor: Predictor,
    params: Params,
    scores: dict[str, Scored],
    mixes: Chosen,
    evaluator: Evaluator,
) -> tuple[dict[str, Method], dict]:
    """The methods that use the fine-tuned networks, and what the popularity mix learnt."""
    e, frequency = params.evaluate, predictor.index.log_frequency
    methods = mixed_methods(mixes, frequency, WIDTH)
    methods["alpha_1"] = alpha_one(_predicting(mixes, e), frequency, WIDTH)
    methods["mufin_rare_and_popular"], learnt = rare_and_popular(
        predictor, scores["valid"], evaluator, e.beta, WIDTH
    )
    return methods, learnt


def _part_rows(predictor: Predictor, data: Curated, params: Params, mix: Mix) -> Rows:
    """The rows of single modalities, if there are pictures and something else."""
    if "image" in params.encoder.modalities and len(params.encoder.modalities) > 1:
        splits = {name: data.splits[name] for name in SPLITS}
        yield from part_rows(predictor, splits, _candidates(params.evaluate, predictor), mix, WIDTH)


def _module_one_rows(home: Path, data: Curated, params: Params, predictor: Predictor) -> Rows:
    """The rows of Module I; its embeddings are read when these rows come.

    The fine-tuned networks have then scored all that they score with the labels of the index.
    """
    predictor.release()
    embeddings = read_embeddings(home / "data/embeddings/pretrain.safetensors")
    k, device = params.evaluate.shortlist, predictor.device
    threads = runtime.threads(params.retrieve.hnsw.threads)
    yield from module_one_rows(data, embeddings, k, device, params.seed, WIDTH, threads)


def _predicting(mixes: Chosen, e: Evaluate) -> Mix:
    """The mix that makes the predictions."""
    return mixes.fixed if e.mix == "fixed" else mixes.chosen


def _reference_rows(
    data: Curated, titles: np.ndarray, predictor: Predictor, tfidf_pairs: int
) -> Rows:
    index, num_labels, device = predictor.index, len(data.labels), predictor.device
    pairs = len(data.train) * sum(len(data.splits[name]) for name in SPLITS)
    if pairs > tfidf_pairs and process_group.rank() == 0:
        said = f"{pairs:.1e} pairs of titles are more than evaluate.tfidf_pairs"
        print(f"evaluate: no row tfidf_datapoints, as {said}", file=sys.stderr, flush=True)
    settings = titles, num_labels, index.ridge, WIDTH, device, pairs <= tfidf_pairs
    of_splits = [reference_rows(data.train, data.splits[name], *settings) for name in SPLITS]
    for found in zip(*of_splits):
        yield found[0][0], {name: ranking for name, (_, ranking) in zip(SPLITS, found)}
    asked = np.concatenate([data.splits[name].product for name in SPLITS])
    if np.isin(asked, data.train.product).any():  # a split by time
        yield "train_pairs", {name: train_pairs_row(data, name, WIDTH) for name in SPLITS}


def _summary(figures: dict[str, dict[str, float]]) -> dict:
    """The figures of `metrics/evaluate.json`."""
    return {split: {m: figures[split][m] for m in names} for split, names in SUMMARY.items()}


def _without_descriptor(scores: dict[str, Scored]) -> dict:
    """The number of datapoints without a descriptor, which get no labels; {} if there are none."""
    counts = {name: s.without_descriptor for name, s in scores.items()}
    return {"datapoints_without_descriptor": counts} if any(counts.values()) else {}


def _write_choices(
    home: Path,
    scores: dict[str, Scored],
    mixes: Chosen,
    learnt: dict,
    unseen: dict,
    e: Evaluate,
) -> None:
    """Writes what was chosen on valid, and the mix that prediction uses."""
    choices = _without_descriptor(scores) | {
        "chosen": mixes.chosen.weights() | {"on": mixes.on, f"on_{mixes.on}": mixes.tried},
        "popularity_mix": learnt,
        "unseen": unseen,
    }
    write_json(choices, home / "metrics/choices.json")
    save_mix(_predicting(mixes, e), home / "models/mix.json", home / "models/index")


def _write_folds(home: Path, folds: list[Fold] | None, mixes: Chosen) -> None:
    """Writes the figures on the folds of train, by which a person can choose other settings."""
    figures = {} if folds is None else out_of_fold_metrics(folds, mixes.fixed, mixes.chosen)
    write_json(figures, home / "metrics/folds.json")


def _unseen_labels(home: Path, predictor: Predictor, params: Params) -> dict:
    """The figures with unseen labels among the candidates, on each split."""
    folder, e = home / "data/curated/unseen", params.evaluate
    unseen, out = read_labels(folder / "labels.parquet"), {}
    threads = runtime.threads(params.retrieve.hnsw.threads)
    for name in SPLITS:
        split = read_split(folder / f"{name}.parquet")
        figures = unseen_labels(predictor, unseen, split, e.shortlist, e.beta, WIDTH, threads)
        out[name] = {"labels": len(predictor.index), "unseen": len(unseen), "alpha_1": figures}
    return out


class _Written:
    """The predictions of all methods, written as they come, and their figures.

    Only figures stay in memory; a ranking of 260,000 datapoints takes 300 MB.
    """

    def __init__(
        self, folder: Path, predicts: str, evaluator: Evaluator, data: Curated, category: np.ndarray
    ):
        self.folder, self.predicts = folder, predicts
        self.evaluator, self.data, self.category = evaluator, data, category
        self.figures: Figures = {}
        self.bins: list[tuple] = []
        self.categories: list[tuple] = []
        self.known: list[tuple] = []

    def add(self, row: str, by_split: BySplit) -> None:
        """Writes the test predictions of a method, and computes all its figures."""
        evaluator = self.evaluator
        self.figures[row] = {
            split: evaluator.metrics(by_split[split][0], split) for split in SPLITS
        }
        labels = by_split["test"][0]
        for number, value in enumerate(evaluator.recall_by_popularity(labels), 1):
            self.bins.append((row, number, round(value, 4)))
        by_category = evaluator.precision_by_category(labels, self.category)
        for name, (count, value) in by_category.items():
            self.categories.append((row, name, count, round(value, 4)))
        for name, count, values in of_known_and_new(labels, self.data, "test"):
            self.known.append((row, name, count, *(round(value, 4) for value in values)))
        write_ranking(*by_split["test"], self.folder / f"methods/{row}.parquet")
        if row == self.predicts:
            write_ranking(*by_split["test"], self.folder / "test.parquet")

    def write_tables(self, home: Path) -> None:
        """Writes all metrics of all methods, and their breakdowns on test, as CSV files."""
        names = list(next(iter(self.figures.values()))["test"])
        table = [
            (row, split, *(by_split[split][m] for m in names))
            for row, by_split in self.figures.items()
            for split in ("test", "valid")
        ]
        write_csv(("method", "split", *names), table, home / "metrics/methods.csv")
        write_csv(("method", "bin", "R@10"), self.bins, home / "metrics/popularity.csv")
        columns = ("method", "category", "datapoints", "P@5")
        write_csv(columns, self.categories, home / "metrics/categories.csv")
        columns = ("method", "group", "datapoints", *FIGURES)
        write_csv(columns, self.known, home / "metrics/known.csv")


def _table(figures: Figures) -> Iterator[str]:
    """The lines of a table of all methods on test."""
    yield f"{'':24s}" + "".join(f"{m:>10s}" for m in TABLE)
    for row, by_split in figures.items():
        yield f"{row:24s}" + "".join(f"{by_split['test'][m]:10.2f}" for m in TABLE)


def _outfit_lines(figures: dict[str, dict[str, float]]) -> Iterator[str]:
    """What to print of the questions with a blank, if there are any."""
    said = {"accuracy": "fill in the blank (alpha = 1)", "AUC": "compatibility of outfits"}
    of_test = figures.get("test", {})
    for name, what in said.items():
        if name in of_test:
            yield f"{what}: {name} {of_test[name]:.2f} +- {of_test[f'{name}_error']:.2f}"


if __name__ == "__main__":
    runtime.run(main, processes.launch, process_group.leave)

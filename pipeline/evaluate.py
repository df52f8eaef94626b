"""Predictions and every metric, on test and valid, of MUFIN, its stages and two rows that keep everyone honest.

python -m pipeline.evaluate
"""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipeline import runtime
from pipeline.ann import build_neighbours
from pipeline.artifacts import Split, read_labels, read_split, read_table, write_ranking
from pipeline.baselines.ridge import TitleRidge
from pipeline.inputs import Curated, open_store, read_curated
from pipeline.judge import Judge, judged
from pipeline.model_files import load_members
from pipeline.nn.mufin import IMAGE, LEXICAL, TEXT
from pipeline.params import Params, load_params
from pipeline.popularity_mix import fit
from pipeline.ragged import Lists
from pipeline.ranking import Mix, choose_mix, rank
from pipeline.recommender import (
    LabelSides,
    augmented_rows,
    classifier_scores,
    embed_members,
    joint_rows,
    joint_vectors,
    label_sides,
)
from pipeline.retrieve import read_embeddings, search
from pipeline.served import Index, load_index
from pipeline.training.embedding import Embedded
from pipeline.xc_metrics import inverse_propensity

WIDTH = 100     # predictions kept a datapoint, where L allows


@dataclass(frozen=True, slots=True)
class Scored:
    """One split's candidates with classifier scores c and similarities a, all (n, K); -1 = no candidate."""

    candidates: np.ndarray
    classifier: np.ndarray
    similarity: np.ndarray
    seconds: float          # retrieval and classification, descriptors known


def main(
    curated: Path = Path("data/curated"),
    precomputed: Path = Path("data/precomputed"),
    embeddings: Path = Path("data/embeddings/pretrain.safetensors"),
    model: Path = Path("models/finetune"),
    index: Path = Path("models/index"),
    predictions: Path = Path("data/predictions/test.parquet"),
    metrics: Path = Path("metrics/evaluate.json"),
    popularity: Path = Path("metrics/popularity.csv"),
    categories: Path = Path("metrics/categories.csv"),
):
    """Predict, score and compare; beta (and the frequency weight) are chosen on valid, never on test."""
    params, data = load_params(), read_curated(curated)
    with runtime.measured(metrics) as report:
        products = read_table(curated / "products.parquet", "products")
        judge = Judge(params, data, products, curated)
        network = Network(params, load_members(model, precomputed), open_store(precomputed, params),
                          load_index(index, runtime.device()))
        ranked, facts = _mufin(network, data, products["title"].to_pylist())
        ranked |= _module_one(params, data, read_embeddings(embeddings))
        ranked |= judge.honest_rows(WIDTH, network.index.ridge)
        report |= {"items": sum(len(data.splits[name]) for name in ("valid", "test"))} | judge.facts() | facts
        for name in ("valid", "test"):
            report[name] = {m: judge.metrics(by_split[name][0], name) for m, by_split in ranked.items()}
        report["unseen"] = {name: _unseen(network, curated, name) for name in ("valid", "test")}
        judge.write_breakdowns({m: by_split["test"][0] for m, by_split in ranked.items()}, popularity, categories)
        for method, by_split in ranked.items():
            write_ranking(*by_split["test"], predictions.parent / f"methods/{method}.parquet")
        write_ranking(*ranked["mufin_chosen" if params.evaluate.mix == "chosen" else "mufin"]["test"], predictions)
    judge.tell(report)


@dataclass(frozen=True, slots=True)
class Network:
    """The fine-tuned members with the index they serve."""

    params: Params
    members: list
    store: object
    index: Index

    def embed(self, products: np.ndarray, modalities: set[int] | None = None) -> list[Embedded]:
        return embed_members(self.members, self.store, products, runtime.device(), runtime.precision(), modalities)

    def sides(self, alpha_one: bool) -> LabelSides:
        return label_sides(self.members, self.index.labels, runtime.device(), alpha_one)

    def score(self, datapoints: list[Embedded], sides: LabelSides, excluded: Lists) -> Scored:
        """Retrieve each datapoint's candidates, its filter pairs aside, and score them."""
        start, e = time.perf_counter(), self.params.evaluate
        num_labels = len(self.index.products)
        k = num_labels if e.candidates == "all" else min(e.shortlist, num_labels)
        labels, similarity = self.index.neighbours.search(joint_vectors(datapoints), k, excluded)
        c = classifier_scores(sides, datapoints, labels, runtime.device())
        return Scored(labels, c, similarity, time.perf_counter() - start)


def _mufin(network: Network, data: Curated, titles: list[str]) -> tuple[dict, dict]:
    """{method: {split: (labels, scores)}} of the fine-tuned model, and how its mix was chosen."""
    e, full = network.params.evaluate, network.sides(False)
    splits = {name: data.splits[name] for name in ("valid", "test")}
    embedded = {name: network.embed(split.product) for name, split in splits.items()}
    scored = {name: network.score(x, full, splits[name].excluded) for name, x in embedded.items()}
    ridge = {name: _ridge_scores(network.index.ridge, splits[name], s.candidates, titles) for name, s in scored.items()}
    frequency = np.log1p(network.index.frequency).astype(np.float32)
    sweep = [Mix(*m) for m in itertools.product(e.betas, e.frequency_weights, e.ridge_weights)]
    if not len(splits["valid"]):
        sweep = [Mix(e.beta)]               # nothing to choose by
    valid, truth = scored["valid"], (splits["valid"].labels, splits["valid"].excluded)
    best, table = choose_mix(valid.candidates, valid.classifier, valid.similarity, *truth, sweep, frequency, ridge["valid"])
    mixes = {"mufin": Mix(e.beta), "mufin_chosen": best}
    if network.index.ridge is not None:
        alone = list(dict.fromkeys(replace(m, ridge_weight=0.0) for m in sweep))
        mixes["mufin_without_ridge"], _ = choose_mix(valid.candidates, valid.classifier, valid.similarity, *truth, alone,
                                                     frequency)
    ranked: dict = {method: {n: _ranked(s, splits[n], mix, frequency, ridge[n]) for n, s in scored.items()}
                    for method, mix in mixes.items()}
    predicted = mixes["mufin_chosen" if e.mix == "chosen" else "mufin"]
    one = network.sides(True)
    alpha_one = {n: replace(s, classifier=classifier_scores(one, embedded[n], s.candidates, runtime.device()))
                 for n, s in scored.items()}
    ranked["alpha_1"] = {n: _ranked(s, splits[n], predicted, frequency, None) for n, s in alpha_one.items()}
    ranked["mufin_rare_and_popular"], learnt = _rare_and_popular(network, data, scored, alpha_one, frequency)
    ranked |= _parts(network, splits, full, predicted, frequency)
    count = max(len(splits["test"]), 1)
    return ranked, {"chosen": asdict(best) | {"on_valid": table}, "popularity_mix": learnt,
                    "milliseconds_a_datapoint": round(1000 * scored["test"].seconds / count, 3)}


def _rare_and_popular(network: Network, data: Curated, scored: dict[str, Scored], alpha_one: dict[str, Scored],
                      frequency: np.ndarray) -> tuple[dict, dict]:
    """{split: (labels, scores)} by the mix for rare and popular labels, learnt on valid, and its weights.

    Valid's are out of fold, but for the share of the rare expert, which is chosen on all of them.
    """
    e, index = network.params.evaluate, network.index
    features = {n: np.stack([s.classifier, alpha_one[n].classifier, s.similarity]) for n, s in scored.items()}
    weights = inverse_propensity(index.frequency, len(data.train), e.propensity.a, e.propensity.b)
    valid, test = data.splits["valid"], data.splits["test"]
    mix, out_of_fold, table = fit(scored["valid"].candidates, features["valid"], frequency, valid.labels, valid.excluded,
                                  weights, np.flatnonzero(index.frequency < e.tail), e.beta)
    scores = {"valid": out_of_fold,
              "test": mix.scores(scored["test"].candidates, features["test"], frequency, test.excluded)}
    ranked = {n: rank(scored[n].candidates, s, s, 1.0, data.splits[n].excluded, width=WIDTH) for n, s in scores.items()}
    return ranked, mix.readable() | {"on_valid": table}


def _parts(network: Network, splits: dict[str, Split], full: LabelSides, mix: Mix, frequency: np.ndarray) -> dict:
    """Title alone or pictures alone at prediction time; without the ridge, which is no part of these."""
    if "image" not in network.params.encoder.modalities or len(network.params.encoder.modalities) < 2:
        return {}
    return {method: {name: _ranked(network.score(network.embed(split.product, modalities), full, split.excluded), split, mix,
                                   frequency, None) for name, split in splits.items()}
            for method, modalities in {"text_only": {TEXT, LEXICAL}, "image_only": {IMAGE}}.items()}


def _ridge_scores(ridge: TitleRidge | None, split: Split, candidates: np.ndarray, titles: list[str]) -> np.ndarray | None:
    """(n, K) the ridge's scores of each datapoint's candidates; None without a ridge."""
    if ridge is None:
        return None
    scores = ridge.scores([titles[p] for p in split.product])
    return np.take_along_axis(scores, np.maximum(candidates, 0), 1)


def _ranked(s: Scored, split: Split, mix: Mix, frequency: np.ndarray,
            ridge: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    ridge = ridge * mix.ridge_weight if ridge is not None and mix.ridge_weight else None
    return rank(s.candidates, s.classifier, s.similarity, mix.beta, split.excluded,
                frequency_term=mix.frequency_weight * frequency, width=WIDTH, ridge_term=ridge)


def _module_one(params: Params, data: Curated, vectors: dict[str, np.ndarray]) -> dict:
    """Module I alone: the labels by similarity, over bags and centroids and over z^1 (Table 4, MUFIN-P-I)."""
    out: dict = {}
    for kind in ("bag", "vec"):
        found = search(vectors, params, kind, {n: data.splits[n].excluded for n in ("valid", "test")})
        out[f"module_1_{kind}"] = {n: rank(labels, np.zeros_like(a), a, 0.0, data.splits[n].excluded, width=WIDTH)
                                   for n, (labels, a) in found.items()}
    return out


def _unseen(network: Network, curated: Path, name: str) -> dict:
    """alpha = 1 with the labels that no model has seen as further candidates (cold splits; METHOD, Splits).

    Every candidate is equal: bag rows without centroids, w = z^1.
    """
    unseen, split = read_labels(curated / "unseen/labels.parquet"), read_split(curated / f"unseen/{name}.parquet")
    if not len(unseen) or not len(split):
        return {}
    products = np.concatenate([network.index.products, unseen])
    labels, x = network.embed(products), network.embed(split.product)
    none = np.zeros((0, joint_rows(labels).shape[1]), np.float32)
    rows = augmented_rows(joint_rows(labels), labels[0].offsets, none)
    k = min(network.params.evaluate.shortlist, len(products))
    found, a = build_neighbours(rows, "auto", m=16, ef_construction=200, ef=800, device=runtime.device(),
                                seed=0).search(joint_vectors(x), k, split.excluded)
    c = classifier_scores(label_sides(network.members, labels, runtime.device(), alpha_one=True), x, found,
                          runtime.device())
    ranked, _ = rank(found, c, a, network.params.evaluate.beta, split.excluded, width=WIDTH)
    return {"candidates": len(products), "unseen": len(unseen),
            "alpha_1": judged(ranked, split.labels, split.excluded, ks=(1, 5), recall_ks=(10, 100))}


if __name__ == "__main__":
    runtime.run(main)

"""The rows that every run of MUFIN reports: its mixes, its parts, and what it could do with other scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from mufin import metrics
from mufin.artifacts.curated import Curated, Split
from mufin.artifacts.embeddings import PretrainEmbeddings
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.evaluation.evaluator import rounded
from mufin.metrics import inverse_propensity
from mufin.nn.embedding import Embedded, joint_rows, joint_vectors
from mufin.ranking.mix import Candidates, Mix, choose_mix, rank
from mufin.ranking.order import Ranking, top
from mufin.ranking.popularity_mix import fit
from mufin.ranking.predictor import Predictor
from mufin.ranking.scoring import classifier_scores, label_sides
from mufin.retrieval.augmented import augmented_rows
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.neighbours import build_neighbours

BySplit = dict[str, Ranking]  # of valid and test
PARTS = {"text_only": {TEXT, LEXICAL}, "image_only": {IMAGE}}  # row: modalities at prediction time


@dataclass(frozen=True, slots=True)
class Scored:
    """The datapoints of a split, embedded, with their candidates."""

    split: Split
    datapoints: list[Embedded]
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class Chosen:
    """How a run mixes its scores."""

    fixed: Mix  # evaluate.beta alone: the paper's score
    chosen: Mix  # the best of the sweep on valid
    without_ridge: Mix | None  # the best without a ridge, where there is one
    on_valid: list[dict]  # the figures of each mix of the sweep


def choose(valid: Scored, sweep: list[Mix], fixed: Mix, log_frequency: np.ndarray) -> Chosen:
    """The mixes; without valid datapoints there is nothing to choose by, and all are `fixed`."""
    if not len(valid.split):
        sweep = [fixed]
    truth, excluded = valid.split.labels, valid.split.excluded
    best, table = choose_mix(valid.candidates, truth, excluded, sweep, log_frequency)
    without = None
    if valid.candidates.ridge is not None:
        alone = list(dict.fromkeys(replace(mix, ridge_weight=0.0) for mix in sweep))
        without, _ = choose_mix(valid.candidates, truth, excluded, alone, log_frequency)
    return Chosen(fixed, best, without, table)


def mixed_rows(
    scored: dict[str, Scored], mixes: Chosen, log_frequency: np.ndarray, width: int
) -> dict[str, BySplit]:
    """`mufin` (the paper's score), `mufin_chosen`, and `mufin_without_ridge` where there is a ridge."""
    rows = {
        "mufin": mixes.fixed,
        "mufin_chosen": mixes.chosen,
        "mufin_without_ridge": mixes.without_ridge,
    }
    return {
        name: {
            n: rank(s.candidates, mix, s.split.excluded, log_frequency, width)
            for n, s in scored.items()
        }
        for name, mix in rows.items()
        if mix is not None
    }


def alpha_one_scores(predictor: Predictor, scored: dict[str, Scored]) -> dict[str, np.ndarray]:
    """{split: (n, K) classifier scores with w = z^1} of the same candidates (Table 4, alpha = 1, at prediction)."""
    return {
        n: predictor.score(s.datapoints, s.candidates.ids, alpha_one=True)
        for n, s in scored.items()
    }


def alpha_one_row(
    scored: dict[str, Scored],
    scores: dict[str, np.ndarray],
    mix: Mix,
    log_frequency: np.ndarray,
    width: int,
) -> BySplit:
    """The alpha = 1 scores under the mix that predicts, without the ridge."""
    out = {}
    for name, s in scored.items():
        candidates = replace(s.candidates, classifier=scores[name], ridge=None)
        out[name] = rank(candidates, mix, s.split.excluded, log_frequency, width)
    return out


def rare_and_popular_row(
    predictor: Predictor,
    scored: dict[str, Scored],
    alpha_one: dict[str, np.ndarray],
    num_train: int,
    propensity: tuple[float, float],
    tail: int,
    beta: float,
    width: int,
) -> tuple[BySplit, dict]:
    """Rare and popular labels scored differently (`popularity_mix`), learnt on valid; and the weights, for people.

    Valid's scores are out of fold, but for the share of the rare expert, which is chosen on all of valid.
    """
    index, valid, test = predictor.index, scored["valid"], scored["test"]
    features = {
        n: np.stack([s.candidates.classifier, alpha_one[n], s.candidates.similarity])
        for n, s in scored.items()
    }
    frequency = index.log_frequency
    mix, out_of_fold, table = fit(
        valid.candidates.ids,
        features["valid"],
        frequency,
        valid.split.labels,
        valid.split.excluded,
        inverse_propensity(index.frequency, num_train, *propensity),
        np.flatnonzero(index.frequency < tail),
        beta,
    )
    scores = mix.scores(test.candidates.ids, features["test"], frequency, test.split.excluded)
    rows = {
        "valid": top(valid.candidates.ids, out_of_fold, valid.split.excluded, width),
        "test": top(test.candidates.ids, scores, test.split.excluded, width),
    }
    return rows, mix.readable() | {"on_valid": table}


def part_rows(
    predictor: Predictor,
    scored: dict[str, Scored],
    k: int,
    mix: Mix,
    log_frequency: np.ndarray,
    width: int,
) -> dict[str, BySplit]:
    """Titles alone, or pictures alone, at prediction time; without the ridge, which is no part of these."""
    out: dict[str, BySplit] = {name: {} for name in PARTS}
    for name, modalities in PARTS.items():
        for split_name, s in scored.items():
            datapoints = predictor.embed(s.split.product, modalities)
            candidates = predictor.candidates(datapoints, k, s.split.excluded)
            out[name][split_name] = rank(candidates, mix, s.split.excluded, log_frequency, width)
    return out


def module_one_rows(
    data: Curated,
    embeddings: PretrainEmbeddings,
    k: int,
    device: torch.device,
    seed: int,
    width: int,
) -> dict[str, BySplit]:
    """Module I alone: labels by similarity, over bags and centroids, and over z^1 (Table 4, MUFIN-P-I-bag and -vec)."""
    z = embeddings.label_vectors
    bags = augmented_rows(embeddings.label_rows, embeddings.label_offsets, embeddings.centroids)
    out: dict[str, BySplit] = {}
    for name, rows in (
        ("module_1_bag", bags),
        ("module_1_vec", LabelRows(z, np.arange(len(z)), len(z))),
    ):
        neighbours, out[name] = build_neighbours(rows, device=device, seed=seed), {}
        for split_name in ("valid", "test"):
            excluded = data.splits[split_name].excluded
            found = neighbours.search(embeddings.datapoints(split_name), min(k, len(z)), excluded)
            out[name][split_name] = top(*found, excluded, width)
    return out


def unseen_labels(
    predictor: Predictor, unseen: np.ndarray, split: Split, k: int, beta: float, width: int
) -> dict[str, float]:
    """alpha = 1 with labels that no model has seen among the candidates (cold splits): P@1, P@5, R@10, R@100.

    Every candidate is treated alike: bag rows without centroids, w = z^1. `split` has label ids over [0, L + U), the
    unseen ones last; `unseen` (U,) their products.
    """
    if not len(unseen) or not len(split):
        return {}
    labels = predictor.embed(np.concatenate([predictor.index.products, unseen]))
    x = predictor.embed(split.product)
    num_labels, rows = len(labels[0].vectors), joint_rows(labels)
    augmented = augmented_rows(rows, labels[0].offsets, np.zeros((0, rows.shape[1]), np.float32))
    neighbours = build_neighbours(augmented, device=predictor.device)
    ids, similarity = neighbours.search(joint_vectors(x), min(k, num_labels), split.excluded)
    sides = label_sides(predictor.networks, labels, predictor.device, alpha_one=True)
    classifier = classifier_scores(sides, x, ids, predictor.device)
    ranked, _ = rank(
        Candidates(ids, classifier, similarity), Mix(beta), split.excluded, width=width
    )
    pair = (split.labels, split.excluded)
    figures = {f"P@{k}": metrics.precision_at_k(ranked, pair[0], k, pair[1]) for k in (1, 5)}
    figures |= {f"R@{k}": metrics.recall_at_k(ranked, pair[0], k, pair[1]) for k in (10, 100)}
    return rounded(figures)

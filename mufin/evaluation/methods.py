"""The methods that every run of MUFIN reports: its mixes, its parts, and other scores.

A row is the name of a method; it has a ranking of valid and one of test. Table 4 is in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from mufin import metrics
from mufin.artifacts.curated import Curated, Split
from mufin.artifacts.embeddings import PretrainEmbeddings
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.evaluation.evaluator import Evaluator, rounded
from mufin.nn.embedding import Embedded, search_vectors
from mufin.ranking.label_index import label_rows
from mufin.ranking.mix import Candidates, Mix, choose_mix, rank
from mufin.ranking.mix_choice import Fold, choose_on_folds
from mufin.ranking.order import Ranking, top
from mufin.ranking.popularity_mix import LabelFacts, fit
from mufin.ranking.predictor import Predictor
from mufin.ranking.scoring import classifier_scores, label_sides
from mufin.retrieval.augmented import augmented_rows
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.neighbours import build_neighbours

BySplit = dict[str, Ranking]  # of valid and test
PARTS = {"text_only": {TEXT, LEXICAL}, "image_only": {IMAGE}}  # row: modalities at prediction time


@dataclass(frozen=True, slots=True)
class Scored:
    """The embedded datapoints of a split and their candidates."""

    split: Split
    datapoints: list[Embedded]
    candidates: Candidates


@dataclass(frozen=True, slots=True)
class Chosen:
    """The mixes of scores that a run reports."""

    fixed: Mix  # evaluate.beta only: the paper's score
    chosen: Mix  # the best of the sweep on valid, or what the folds choose
    without_ridge: Mix | None  # the best without a title ridge, None if there is no ridge
    without_votes: Mix | None  # the best without votes of train datapoints, None if there are none
    without_pairs: Mix | None  # the best without pairs of train, None if valid has none of them
    tried: list[dict]  # weights and figures of each mix in the sweep
    on: str = "valid"  # where the mixes were tried: valid or folds


def choose(valid: Scored, sweep: list[Mix], fixed: Mix, log_frequency: np.ndarray) -> Chosen:
    """The best mixes of `sweep` on valid; `fixed` if there are no valid datapoints."""
    if not len(valid.split):
        sweep = [fixed]
    if valid.candidates.pairs is None:  # no weight of them makes a difference
        sweep = list(dict.fromkeys(replace(mix, pair_weight=0.0) for mix in sweep))
    truth, excluded = valid.split.labels, valid.split.excluded
    best, table = choose_mix(valid.candidates, truth, excluded, sweep, log_frequency)

    def best_without(there: bool, **term: float) -> Mix | None:
        if not there:
            return None
        alone = list(dict.fromkeys(replace(mix, **term) for mix in sweep))
        return choose_mix(valid.candidates, truth, excluded, alone, log_frequency)[0]

    return Chosen(
        fixed,
        best,
        best_without(valid.candidates.ridge is not None, ridge_weight=0.0),
        best_without(valid.candidates.votes is not None, vote_weight=0.0),
        best_without(best.pair_weight > 0, pair_weight=0.0),
        table,
    )


def choose_by_folds(
    folds: list[Fold], valid: Scored, sweep: list[Mix], fixed: Mix, log_frequency: np.ndarray
) -> Chosen:
    """The best mixes of `sweep` on `folds` of train.

    A left-out product has no pairs in train, so folds tell nothing of `pair_weight`. It is chosen
    on valid, for the mix of the folds, where valid has products of train (`curate.split: time`).
    """
    alone = list(dict.fromkeys(replace(mix, pair_weight=0.0) for mix in sweep))
    choice = choose_on_folds(folds, alone, fixed)
    best = choice.mix

    def best_without(part: Literal["ridge", "votes"], **term: float) -> Mix | None:
        if getattr(valid.candidates, part) is None:
            return None
        mixes = list(dict.fromkeys(replace(mix, **term) for mix in alone))
        return choose_on_folds([f.without(part) for f in folds], mixes, fixed).mix

    if valid.candidates.pairs is not None:
        weights = dict.fromkeys([0.0, *(mix.pair_weight for mix in sweep)])
        pairs = [replace(best, pair_weight=weight) for weight in weights]
        truth, excluded = valid.split.labels, valid.split.excluded
        best, _ = choose_mix(valid.candidates, truth, excluded, pairs, log_frequency)
    return Chosen(
        fixed,
        best,
        best_without("ridge", ridge_weight=0.0),
        best_without("votes", vote_weight=0.0),
        choice.mix if best.pair_weight > 0 else None,
        choice.tried,
        "folds",
    )


def mixed_rows(
    scored: dict[str, Scored], mixes: Chosen, log_frequency: np.ndarray, width: int
) -> dict[str, BySplit]:
    """`mufin` (the paper's score), `mufin_chosen`, and the best without one of the other terms.

    The latter are `mufin_without_ridge`, `mufin_without_votes` and `mufin_without_pairs`, if the
    mix has these parts.
    """
    rows = {
        "mufin": mixes.fixed,
        "mufin_chosen": mixes.chosen,
        "mufin_without_ridge": mixes.without_ridge,
        "mufin_without_votes": mixes.without_votes,
        "mufin_without_pairs": mixes.without_pairs,
    }
    return {
        row: _ranked(scored, mix, log_frequency, width)
        for row, mix in rows.items()
        if mix is not None
    }


def _ranked(scored: dict[str, Scored], mix: Mix, log_frequency: np.ndarray, width: int) -> BySplit:
    return {
        name: rank(s.candidates, mix, s.split.excluded, log_frequency, width)
        for name, s in scored.items()
    }


def alpha_one_scores(predictor: Predictor, scored: dict[str, Scored]) -> dict[str, np.ndarray]:
    """{split: (n, K)} scores of the candidates by w = z^1 (Table 4, alpha = 1, at prediction)."""
    return {
        name: predictor.score(s.datapoints, s.candidates.ids, alpha_one=True)
        for name, s in scored.items()
    }


def alpha_one_row(
    scored: dict[str, Scored],
    scores: dict[str, np.ndarray],
    mix: Mix,
    log_frequency: np.ndarray,
    width: int,
) -> BySplit:
    """The rankings by alpha = 1 `scores` instead of classifier scores, and by similarity.

    Without ridge, votes and pairs.
    """

    def replaced_in(s: Scored, classifier: np.ndarray) -> Scored:
        own = replace(s.candidates, classifier=classifier, ridge=None, votes=None, pairs=None)
        return replace(s, candidates=own)

    replaced = {name: replaced_in(s, scores[name]) for name, s in scored.items()}
    return _ranked(replaced, mix.of_network(), log_frequency, width)


def rare_and_popular_row(
    predictor: Predictor,
    scored: dict[str, Scored],
    alpha_one: dict[str, np.ndarray],
    evaluator: Evaluator,
    beta: float,
    width: int,
) -> tuple[BySplit, dict]:
    """The rankings by `popularity_mix`, learnt on valid, and its weights for a metrics file.

    `alpha_one` are the scores of `alpha_one_scores`. The scores of valid are out of fold, except
    that the share of the rare expert is chosen on all of valid.
    """
    index, valid, test = predictor.index, scored["valid"], scored["test"]
    features = {
        name: np.stack([s.candidates.classifier, alpha_one[name], s.candidates.similarity])
        for name, s in scored.items()
    }
    weights = metrics.inverse_propensity(
        index.frequency, evaluator.num_train, *evaluator.propensity
    )
    mix, out_of_fold, table = fit(
        valid.candidates.ids,
        features["valid"],
        valid.split.labels,
        valid.split.excluded,
        LabelFacts(index.log_frequency, weights, evaluator.tail_labels),
        beta,
    )
    scores = mix.scores(
        test.candidates.ids, features["test"], index.log_frequency, test.split.excluded
    )
    rows = {
        "valid": top(valid.candidates.ids, out_of_fold, valid.split.excluded, width),
        "test": top(test.candidates.ids, scores, test.split.excluded, width),
    }
    return rows, mix.readable() | {"on_valid": table}


def part_rows(
    predictor: Predictor, scored: dict[str, Scored], k: int, mix: Mix, width: int
) -> dict[str, BySplit]:
    """`text_only` and `image_only`: one modality at prediction time, without ridge and votes."""
    out: dict[str, BySplit] = {row: {} for row in PARTS}
    for row, modalities in PARTS.items():
        for name, s in scored.items():
            datapoints = predictor.embed(s.split.product, modalities)
            candidates = predictor.candidates(datapoints, k, s.split.excluded)
            candidates = replace(candidates, votes=None)
            out[row][name] = rank(
                candidates,
                mix.of_network(),
                s.split.excluded,
                predictor.index.log_frequency,
                width,
            )
    return out


def module_one_rows(
    data: Curated,
    embeddings: PretrainEmbeddings,
    k: int,
    device: torch.device,
    seed: int,
    width: int,
) -> dict[str, BySplit]:
    """Module I only: labels by similarity (Table 4, MUFIN-P-I).

    `module_1_bag` searches bag rows and centroids, `module_1_vec` the label vectors z^1.
    """
    z = embeddings.label_vectors
    bags = augmented_rows(embeddings.label_rows, embeddings.label_offsets, embeddings.centroids)
    searched = {"module_1_bag": bags, "module_1_vec": LabelRows(z, np.arange(len(z)), len(z))}
    out: dict[str, BySplit] = {}
    for row, rows in searched.items():
        neighbours, out[row] = build_neighbours(rows, device=device, seed=seed), {}
        for name in ("valid", "test"):
            excluded = data.splits[name].excluded
            found = neighbours.search(embeddings.datapoints(name), min(k, len(z)), excluded)
            out[row][name] = top(*found, excluded, width)
    return out


def unseen_labels(
    predictor: Predictor, unseen: np.ndarray, split: Split, k: int, beta: float, width: int
) -> dict[str, float]:
    """P@1, P@5, R@10 and R@100 with labels that no model has seen among the candidates.

    Cold splits leave such labels out of training. `unseen` (U,) are their products. The labels of
    `split` are ids over [0, L + U), the unseen ones last. All L + U labels are treated alike: bag
    rows without centroids, and w = z^1 (alpha = 1).
    """
    if not len(unseen) or not len(split):
        return {}
    labels = predictor.embed(np.concatenate([predictor.index.products, unseen]))
    x = predictor.embed(split.product)
    found = labels
    if predictor.retrievers is not None:
        found = predictor.embed_for_search(np.concatenate([predictor.index.products, unseen]))
    num_labels = len(labels[0].vectors)
    no_centroids = np.zeros((0, predictor.index.centroids.shape[1]), np.float32)
    rows = label_rows(predictor.index.vectors, found, no_centroids)
    neighbours = build_neighbours(rows, device=predictor.device)
    ids, similarity = neighbours.search(search_vectors(x), min(k, num_labels), split.excluded)
    sides = label_sides(predictor.networks, labels, predictor.device, alpha_one=True)
    candidates = Candidates(ids, classifier_scores(sides, x, ids, predictor.device), similarity)
    ranked, _ = rank(candidates, Mix(beta), split.excluded, width=width)
    truth, excluded = split.labels, split.excluded
    figures = {f"P@{k}": metrics.precision_at_k(ranked, truth, k, excluded) for k in (1, 5)}
    for at in (10, 100):
        figures[f"R@{at}"] = metrics.recall_at_k(ranked, truth, at, excluded)
    return rounded(figures)

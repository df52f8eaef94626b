"""The methods that every run of MUFIN reports: its mixes, its parts, and other scores.

A row is the name of a method; it has a ranking of valid and one of test. Table 4 is in the paper.
Rows come one at a time, so that only one is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from mufin import metrics
from mufin.artifacts.curated import Curated, Split
from mufin.artifacts.embeddings import PretrainEmbeddings
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.evaluation.chosen import Chosen
from mufin.evaluation.evaluator import Evaluator, rounded
from mufin.evaluation.scored import CELLS, Block, Scored, in_blocks
from mufin.nn.embedding import search_vectors
from mufin.ranking.label_index import label_rows
from mufin.ranking.mix import Candidates, Mix, rank
from mufin.ranking.order import Ranking, top
from mufin.ranking.popularity_fit import LabelFacts, fit
from mufin.ranking.predictor import Predictor
from mufin.ranking.scoring import classifier_scores, label_sides
from mufin.retrieval.augmented import augmented_rows
from mufin.retrieval.exact import LabelRows
from mufin.retrieval.neighbours import searched_once

BySplit = dict[str, Ranking]  # of valid and test
# The ranking of some datapoints: from the name of the split, their numbers in it, and their block
Method = Callable[[str, np.ndarray, Block], Ranking]
PARTS = {"text_only": {TEXT, LEXICAL}, "image_only": {IMAGE}}  # row: modalities at prediction time


def rankings(
    scores: Mapping[str, Scored], methods: Mapping[str, Method]
) -> Iterator[tuple[str, BySplit]]:
    """Each method and its rankings of all splits."""
    found = [
        in_blocks(s, {row: partial(method, name) for row, method in methods.items()})
        for name, s in scores.items()
    ]
    for of_splits in zip(*found):
        row = of_splits[0][0]
        yield row, {name: (own[0], own[1]) for name, (_, own) in zip(scores, of_splits)}


def mixed(mix: Mix, log_frequency: np.ndarray, width: int) -> Method:
    """The ranking by a mix of scores."""

    def method(name: str, rows: np.ndarray, block: Block) -> Ranking:
        return rank(block.candidates, mix, block.split.excluded, log_frequency, width)

    return method


def mixed_methods(mixes: Chosen, log_frequency: np.ndarray, width: int) -> dict[str, Method]:
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
    return {row: mixed(mix, log_frequency, width) for row, mix in rows.items() if mix is not None}


def alpha_one(mix: Mix, log_frequency: np.ndarray, width: int) -> Method:
    """The ranking by alpha = 1 scores instead of classifier scores, and by similarity.

    Without ridge, votes and pairs.
    """

    def method(name: str, rows: np.ndarray, block: Block) -> Ranking:
        own = Candidates(block.candidates.ids, block.alpha_one, block.candidates.similarity)
        return rank(own, mix.of_network(), block.split.excluded, log_frequency, width)

    return method


def rare_and_popular(
    predictor: Predictor, valid: Scored, evaluator: Evaluator, beta: float, width: int
) -> tuple[Method, dict]:
    """The ranking by `popularity_mix`, learnt on valid, and its weights for a metrics file.

    The scores of valid are out of fold, except that the share of the rare expert is chosen on all
    of valid.
    """
    index = predictor.index
    weights = metrics.inverse_propensity(
        index.frequency, evaluator.num_train, *evaluator.propensity
    )
    learnt = fit(
        valid.features,
        valid.per_block,
        valid.split.labels,
        valid.split.excluded,
        LabelFacts(index.log_frequency, weights, evaluator.tail_labels),
        beta,
    )

    def method(name: str, rows: np.ndarray, block: Block) -> Ranking:
        c, excluded = block.candidates, block.split.excluded
        features = np.stack([c.classifier, block.alpha_one, c.similarity])
        if name == "valid":
            scores = learnt.out_of_fold(rows, c.ids, features, index.log_frequency, excluded)
        else:
            scores = learnt.mix.scores(c.ids, features, index.log_frequency, excluded)
        return top(c.ids, scores, excluded, width)

    return method, learnt.mix.readable() | {"on_valid": learnt.table}


def part_rows(
    predictor: Predictor, splits: Mapping[str, Split], k: int, mix: Mix, width: int
) -> Iterator[tuple[str, BySplit]]:
    """`text_only` and `image_only`: one modality at prediction time, without ridge and votes."""
    step = max(1, CELLS // max(k, 1))
    for row, modalities in PARTS.items():
        out = {}
        for name, split in splits.items():
            parts = [
                _of_part(predictor, split.take(rows), modalities, k, mix, width)
                for rows in np.split(np.arange(len(split)), range(step, len(split), step))
            ]
            labels, scores = zip(*parts)
            out[name] = np.concatenate(labels), np.concatenate(scores)
        yield row, out


def _of_part(
    predictor: Predictor, split: Split, modalities: set[int], k: int, mix: Mix, width: int
) -> Ranking:
    datapoints = predictor.embed(split.product, modalities)
    candidates = replace(predictor.candidates(datapoints, k, split.excluded), votes=None)
    frequency = predictor.index.log_frequency
    return rank(candidates, mix.of_network(), split.excluded, frequency, width)


def module_one_rows(
    data: Curated,
    embeddings: PretrainEmbeddings,
    k: int,
    device: torch.device,
    seed: int,
    width: int,
    threads: int = 1,
) -> Iterator[tuple[str, BySplit]]:
    """Module I only: labels by similarity (Table 4, MUFIN-P-I).

    `module_1_bag` searches bag rows and centroids, `module_1_vec` the label vectors z^1. A graph of
    HNSW is built by `threads`.
    """
    z = embeddings.label_vectors
    bags = augmented_rows(embeddings.label_rows, embeddings.label_offsets, embeddings.centroids)
    searched = {"module_1_bag": bags, "module_1_vec": LabelRows(z, np.arange(len(z)), len(z))}
    excluded = {name: data.splits[name].excluded for name in ("valid", "test")}
    asked = [(embeddings.datapoints(name), pairs) for name, pairs in excluded.items()]
    for row, rows in searched.items():
        found = searched_once(
            rows, asked, min(k, len(z)), device=device, seed=seed, threads=threads
        )
        yield (
            row,
            {
                name: top(*answers, pairs, width)
                for (name, pairs), answers in zip(excluded.items(), found)
            },
        )


def unseen_labels(
    predictor: Predictor,
    unseen: np.ndarray,
    split: Split,
    k: int,
    beta: float,
    width: int,
    threads: int = 1,
) -> dict[str, float]:
    """P@1, P@5, R@10 and R@100 with labels that no model has seen among the candidates.

    Cold splits leave such labels out of training. `unseen` (U,) are their products. The labels of
    `split` are ids over [0, L + U), the unseen ones last. All L + U labels are treated alike: bag
    rows without centroids, and w = z^1 (alpha = 1). A graph of HNSW is built by `threads`.
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
    asked = [(search_vectors(x), split.excluded)]
    [(ids, similarity)] = searched_once(
        rows, asked, min(k, num_labels), device=predictor.device, threads=threads
    )
    sides = label_sides(predictor.networks, labels, predictor.device, alpha_one=True)
    candidates = Candidates(ids, classifier_scores(sides, x, ids, predictor.device), similarity)
    ranked, _ = rank(candidates, Mix(beta), split.excluded, width=width)
    truth, excluded = split.labels, split.excluded
    figures = {f"P@{k}": metrics.precision_at_k(ranked, truth, k, excluded) for k in (1, 5)}
    for at in (10, 100):
        figures[f"R@{at}"] = metrics.recall_at_k(ranked, truth, at, excluded)
    return rounded(figures)

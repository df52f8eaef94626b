"""SiameseXML on titles.

Dahiya et al., "SiameseXML: Siamese Networks meet Extreme Classifiers with 100M Labels", ICML 2021.

As published: one encoder for datapoints and labels sums word vectors by TF-IDF and rectifies the
sum. Module I trains it in batches of labels, each with one of its datapoints as the positive and
the hardest datapoints of the batch's other labels as negatives, by the paper's probabilistic
contrastive loss on cosines, P[y = 1] = c exp(d (cosine - 1)). Module II takes the union of two
searches: the nearest labels, and the labels of the nearest train datapoints. Module IV freezes the
encoder and trains w_l = N(z_l + eta_l) and a residual layer on datapoints, by the same loss on
positives and shortlisted negatives. The final score mixes classifier and similarity.

Differences: word vectors start at random (pretrained fastText vectors are not available); the
searches are exact (matrix products in chunks) where the paper uses HNSW; the weight beta is chosen
on valid; no ensemble; eta starts at 0, where the released code starts from graph-smoothed label
text; a label's similarity is the larger cosine of the two searches, without the released code's
sigmoids.

Settings. The defaults of `trained`, which are the first of `SETTINGS`, are published (released
code, LF-AmazonTitles-131K): 300 dimensions, single words, dropout 0.5, 50 epochs of Module I at
rate 0.01, 20 epochs of Module IV. Adapted to a few thousand titles, and the same for all settings:
batches of 512 labels and 128 datapoints (published: 4095 and 253), rate 0.005 in Module IV
(published: 0.0002, for 23,000 steps), `near_labels` 100 (published: 500). Tried on valid
in addition: dropout 0.3, and twice as many epochs of Module IV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mufin.baselines.shared.shortlists import (
    batch_pairs,
    decay,
    distinct,
    mixed,
    negatives_of,
    positives_of,
    step,
)
from mufin.baselines.shared.task import Predict, Task
from mufin.baselines.shared.text_bags import Bags, Residual, WordBag, title_bags
from mufin.baselines.shared.tuning import Settings, Tuned, best
from mufin.progress import progress
from mufin.ragged import Lists

BUDGET = 2**24  # cosines (float32) held at once by a search: 64 MB
BETAS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
SETTINGS = (  # published first
    {"dropout": 0.5, "epochs": 20},
    {"dropout": 0.5, "epochs": 40},
    {"dropout": 0.3, "epochs": 20},
    {"dropout": 0.3, "epochs": 40},
)


class SiameseXML(nn.Module):
    """z_l, x_i = N(ReLU(E words)); w_l = N(z_l + eta_l).

    The classifiers' datapoint is N(x + dropout(ReLU(R x))).
    """

    def __init__(self, num_terms: int, num_labels: int, dim: int, dropout: float):
        super().__init__()
        self.words, self.dropout = WordBag(num_terms, dim), nn.Dropout(dropout)
        self.residual = Residual(dim, dropout)
        self.eta = nn.Embedding(num_labels, dim, sparse=True)
        nn.init.zeros_(self.eta.weight)

    def encoded(self, bags: Bags, rows: np.ndarray) -> Tensor:
        """(n, dim) of titles `rows`, unit norm."""
        return normalize(self.dropout(torch.relu(self.words(bags, rows))), dim=1)

    def classifiers(self, z: Tensor, labels: Tensor) -> Tensor:
        """(k, dim) w_l of `labels` (k,), from the labels' vectors `z` (L, dim)."""
        return normalize(z[labels] + self.eta(labels), dim=-1)

    def scores(self, z: Tensor, x: Tensor, ids: np.ndarray) -> Tensor:
        """(n, K) cosines of datapoints `x` (n, dim) with the classifiers of `ids` (n, K).

        Undefined where an id is -1.
        """
        labels, place = distinct(ids, x.device)
        return (self.refined(x) @ self.classifiers(z, labels).T).gather(1, place)

    def refined(self, x: Tensor) -> Tensor:
        """(n, dim) datapoint vectors for the classifiers, from the encoder's (n, dim)."""
        return normalize(self.residual(x), dim=-1)


def contrastive(cosine: Tensor, c: float, d: float) -> tuple[Tensor, Tensor]:
    """The losses of a pair if it is relevant, and if not: -log P and -log(1 - P), divided by d.

    P = c exp(d (cosine - 1)).
    """
    return (1 - cosine) - math.log(c) / d, -torch.log1p(-c * torch.exp(d * (cosine - 1))) / d


def baseline(task: Task, seed: int, *, settings: Sequence[Settings] = SETTINGS) -> Tuned:
    """The best of `settings` on valid, by `trained`."""
    return best(task, seed, settings, trained)


def trained(
    task: Task,
    seed: int,
    *,
    dim: int = 300,
    ngrams: int = 1,
    min_count: int = 1,
    dropout: float = 0.5,
    pretrain_epochs: int = 50,
    pretrain_batch: int = 512,
    pretrain_lr: float = 0.01,
    hard: int = 5,
    epochs: int = 20,
    batch: int = 128,
    lr: float = 0.005,
    near_labels: int = 100,
    near_datapoints: int = 20,
    negatives: int = 100,
) -> Predict:
    """Trained on train; beta chosen on valid. Text only.

    Module I uses `hard` negatives per label. A shortlist is the union of the `near_labels` nearest
    labels and those of the `near_datapoints` nearest train datapoints; Module IV uses `negatives`
    of it per datapoint.
    """
    with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        bags, num_terms = title_bags(task.titles, ngrams, min_count)
        model = SiameseXML(num_terms, task.num_labels, dim, dropout).to(task.device)
        _pretrain(model, bags, task, rng, pretrain_epochs, pretrain_batch, pretrain_lr, hard)
        vectors = {
            name: normalize(torch.relu(model.words.all(some)), dim=1) for name, some in bags.items()
        }
        search = Shortlists(
            vectors["labels"], vectors["train"], task.truth["train"], near_labels, near_datapoints
        )
        found, _ = search.of(vectors["train"], task.excluded["train"], own=True)
        _finetune(model, vectors, task, found, rng, epochs, batch, lr, negatives)
    model.eval()
    return mixed(lambda split: _scores(model, vectors, search, task, split), task, BETAS)


def known_pairs(task: Task) -> sp.csr_matrix:
    """(N, L) int8 of train: 1 where relevant, 2 for a filter pair (no positive and no negative)."""
    truth, excluded = positives_of(task), task.excluded["train"]
    values = np.concatenate(
        [np.ones(len(truth.values), np.int8), np.full(len(excluded.values), 2, np.int8)]
    )
    where = (
        np.concatenate([truth.rows(), excluded.rows()]),
        np.concatenate([truth.values, excluded.values]),
    )
    pairs = sp.coo_matrix((values, where), (len(truth), task.num_labels)).tocsr()
    pairs.data = np.minimum(pairs.data, 2)
    return pairs


def _pretrain(
    model: SiameseXML,
    bags: dict[str, Bags],
    task: Task,
    rng: np.random.Generator,
    epochs: int,
    size: int,
    lr: float,
    hard: int,
) -> None:
    """Module I: batches of labels with one random datapoint each.

    The negatives are in the batch.
    """
    known = known_pairs(task).T.tocsr()
    of_label = positives_of(task).transpose(task.num_labels)
    labels = np.flatnonzero(np.diff(of_label.offsets))
    optimiser = torch.optim.SparseAdam(model.words.parameters(), lr=lr)
    for epoch in progress(range(epochs), "SiameseXML, Module I", "epochs"):
        model.train()
        decay([optimiser], lr, epoch, epochs)
        for some in np.array_split(rng.permutation(labels), max(1, math.ceil(len(labels) / size))):
            lengths = np.diff(of_label.offsets)[some]
            datapoints = of_label.values[
                of_label.offsets[some] + (rng.random(len(some)) * lengths).astype(np.int64)
            ]
            relation = torch.from_numpy(known[some][:, datapoints].toarray()).to(task.device)
            cosine = (
                model.encoded(bags["labels"], some) @ model.encoded(bags["train"], datapoints).T
            )
            loss = siamese_loss(cosine, relation, hard)
            step([optimiser], loss)


def siamese_loss(
    cosine: Tensor, relation: Tensor, hard: int, c: float = 0.9, d: float = 1.5
) -> Tensor:
    """The mean over labels of the losses of relevant and of the `hard` hardest irrelevant
    datapoints.

    `cosine` (labels, datapoints), `relation` of the same shape: 1 relevant, 0 not relevant, 2 a
    filter pair (ignored).
    """
    positive, negative = contrastive(cosine, c, d)
    hardest = negative.masked_fill(relation != 0, 0.0).topk(min(hard, cosine.shape[1]), 1).values
    return ((positive * (relation == 1)).sum() + hardest.sum()) / len(cosine)


@dataclass(frozen=True, slots=True)
class Shortlists:
    """Module II: the union of the nearest labels and the labels of the nearest train datapoints.

    Both searches are exact, by cosine.
    """

    labels: Tensor  # (L, dim), unit norm
    datapoints: Tensor  # (N, dim), unit norm
    truth: Lists  # of the train datapoints
    near_labels: int
    near_datapoints: int

    def of(
        self, queries: Tensor, excluded: Lists, own: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, K) distinct labels, -1 padded, and the similarity of each.

        The similarity is the larger one of the two searches. At least `near_labels` labels in
        addition to the filter pairs, where L allows. `own`: query i is train datapoint i, which is
        not its own neighbour.
        """
        most = int(np.diff(excluded.offsets).max(initial=0))
        labels, cosine = nearest(queries, self.labels, self.near_labels + most)
        rows = np.repeat(np.arange(len(queries)), labels.shape[1])
        points, similar = nearest(queries, self.datapoints, self.near_datapoints, own)
        theirs = self.truth.take(points.reshape(-1))
        query = np.repeat(np.arange(len(queries)), points.shape[1])[theirs.rows()]
        return union(
            np.concatenate([rows, query]),
            np.concatenate([labels.reshape(-1), theirs.values]),
            np.concatenate([cosine.reshape(-1), similar.reshape(-1)[theirs.rows()]]),
            len(queries),
        )


def union(
    rows: np.ndarray, labels: np.ndarray, similarity: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) each row's distinct labels by id, -1 padded, and the largest similarity of each.

    0 where there is padding.
    """
    order = np.lexsort((-similarity, labels, rows))
    rows, labels, similarity = rows[order], labels[order], similarity[order]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]) | (labels[1:] != labels[:-1])
    lengths = np.bincount(rows[first], minlength=n)
    found = np.full((n, int(lengths.max(initial=0))), -1, np.int64)
    best = np.zeros(found.shape, np.float32)
    place = np.arange(found.shape[1]) < lengths[:, None]
    found[place], best[place] = labels[first], similarity[first]
    return found, best


@torch.no_grad()
def nearest(
    queries: Tensor, keys: Tensor, k: int, own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """(n, min(k, m)) the rows of `keys` (m, dim) with the largest products, and the products.

    `own`: without row i for i.
    """
    k, step = min(k, len(keys) - own), max(1, BUDGET // max(len(keys), 1))
    index, values = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ keys.T
        if own:
            here = torch.arange(len(scores), device=scores.device)
            scores[here, here + start] = -torch.inf
        best = scores.topk(k, 1)
        index[start : start + step], values[start : start + step] = (
            best.indices.cpu().numpy(),
            best.values.cpu().numpy(),
        )
    return index, values


def _finetune(
    model: SiameseXML,
    vectors: dict[str, Tensor],
    task: Task,
    found: np.ndarray,
    rng: np.random.Generator,
    epochs: int,
    size: int,
    lr: float,
    negatives: int,
) -> None:
    """Module IV: eta and the residual layer, on all positives and `negatives` shortlisted labels.

    The encoder is frozen.
    """
    truth, wrong = positives_of(task), negatives_of(found, task)
    optimisers = [
        torch.optim.SparseAdam(model.eta.parameters(), lr=lr),
        torch.optim.Adam(model.residual.parameters(), lr=lr),
    ]
    useful = np.flatnonzero(np.diff(truth.offsets))
    for epoch in progress(range(epochs), "SiameseXML, Module IV", "epochs"):
        model.train()
        decay(optimisers, lr, epoch, epochs)
        for rows in np.array_split(rng.permutation(useful), max(1, math.ceil(len(useful) / size))):
            labels, target = batch_pairs(truth.take(rows), wrong[rows], negatives, rng)
            x = vectors["train"][torch.from_numpy(rows).to(task.device)]
            cosine = model.scores(vectors["labels"], x, labels)
            step(optimisers, classifier_loss(cosine, torch.from_numpy(target).to(task.device)))


def classifier_loss(
    cosine: Tensor, target: Tensor, c: float = 0.75, d: float = 3.0, threshold: float = 0.05
) -> Tensor:
    """The mean over datapoints of the pairs' losses.

    Irrelevant pairs below `threshold` are left out.
    """
    positive, negative = contrastive(cosine, c, d)
    negative = negative.masked_fill((target != 0) | (negative < threshold), 0.0)
    return ((positive * (target == 1)).sum() + negative.sum()) / len(cosine)


@torch.no_grad()
def _scores(
    model: SiameseXML,
    vectors: dict[str, Tensor],
    search: Shortlists,
    task: Task,
    split: str,
    chunk: int = 1024,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, K) the shortlist of each datapoint of `split`, its classifiers' cosines and its
    similarities.
    """
    found, similarity = search.of(vectors[split], task.excluded[split])
    classifier = np.zeros(found.shape, np.float32)
    for start in range(0, len(found), chunk):
        rows = slice(start, start + chunk)
        classifier[rows] = (
            model.scores(vectors["labels"], vectors[split][rows], found[rows]).cpu().numpy()
        )
    return found, classifier, similarity

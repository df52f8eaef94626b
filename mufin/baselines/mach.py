"""MACH on titles: labels hashed R times into few buckets, with one small network per hashing.

Medini et al., NeurIPS 2019.

Settings. The defaults of `trained`, which are the first of `SETTINGS`, are published (released
code, Wiki10-31K, the smallest of its data sets): 32 hashings, 500 hidden units, 60 epochs in
batches of 100 by Adam at rate 0.001, no dropout. Tried on valid in addition, each with dropout 0.5,
128 hidden units, batches of 64 and rate 0.002: 20 epochs, 40 epochs, and 40 epochs with dropout
0.7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import nn
from torch.nn import functional as F

from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.baselines.shared.tuning import Settings, Tuned, best
from mufin.ragged import Lists
from mufin.ranking.order import top

BUDGET = 2**25  # scores (float32) of a chunk of datapoints against all labels: 128 MB
MOST_FEATURES = 2**17


SETTINGS = (  # published first
    {"dropout": 0.0, "hidden": 500, "epochs": 60, "batch": 100, "lr": 1e-3},
    {"dropout": 0.5, "hidden": 128, "epochs": 20, "batch": 64, "lr": 2e-3},
    {"dropout": 0.5, "hidden": 128, "epochs": 40, "batch": 64, "lr": 2e-3},
    {"dropout": 0.7, "hidden": 128, "epochs": 40, "batch": 64, "lr": 2e-3},
)


def baseline(task: Task, seed: int, *, settings: Sequence[Settings] = SETTINGS) -> Tuned:
    """The best of `settings` on valid, by `trained`."""
    return best(task, seed, settings, trained)


def trained(
    task: Task,
    seed: int,
    *,
    repetitions: int = 32,
    buckets: int | None = None,
    hidden: int = 500,
    epochs: int = 60,
    lr: float = 1e-3,
    dropout: float = 0.0,
    batch: int = 100,
) -> Predict:
    """R networks on hashed titles, each for the buckets of its own hashing of the labels.

    As published: R independent 2-universal hashes map labels to B buckets. Each has a network with
    one hidden layer of rectified units on feature-hashed words, trained by binary cross-entropy; a
    bucket is relevant if one of its labels is. A label's score is the mean over r of its bucket's
    probability. The publication's unbiased estimator, B / (B - 1) (mean - 1 / B), grows with that
    mean, so the ranking is the same. `buckets` None takes B = 3 sqrt(L), the publication's
    proportion (20,000 for 49 million labels).

    Differences: hashed counts are weighted by TF-IDF; the number of hashed words follows from the
    train titles (the publication: 80,000); single words only, without pairs of words and letter
    trigrams; dropout on the hidden layer; all R networks train together on the same batches; biases
    start at the buckets' log-odds; a bucket that holds the label of a filter pair and no relevant
    label is left out of the loss.
    """
    inputs, hashes = (
        Titles(task.titles["train"]),
        label_hashes(task.num_labels, buckets, repetitions, seed),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        nets = Nets(
            inputs.features, hidden, repetitions, num_buckets(task.num_labels, buckets), dropout
        ).to(task.device)
        _train(nets, inputs, task, hashes, epochs, lr, batch, np.random.default_rng(seed))
    nets.eval()

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        return _predict(nets, inputs(task.titles[split]), hashes, task.excluded[split], task.device)

    return predict


def num_buckets(num_labels: int, buckets: int | None) -> int:
    """B: `buckets`, or 3 sqrt(L) where that is None; at least 2."""
    return max(2, math.ceil(3 * math.sqrt(num_labels)) if buckets is None else buckets)


def label_hashes(num_labels: int, buckets: int | None, repetitions: int, seed: int) -> np.ndarray:
    """(R, L) int64 in [0, B): ((a l + b) mod p) mod B, with a and b drawn for each r.

    2-universal (Carter and Wegman).
    """
    prime, rng = 2**31 - 1, np.random.default_rng([seed, 7])
    a, b = rng.integers(1, prime, (repetitions, 1)), rng.integers(0, prime, (repetitions, 1))
    return (a * np.arange(num_labels) + b) % prime % num_buckets(num_labels, buckets)


class Titles:
    """Titles as hashed words: TF-IDF of unit norm, with weights from the train titles."""

    def __init__(self, titles: list[str]):
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        words = HashingVectorizer(
            token_pattern=r"(?u)\b\w+\b", norm=None, alternate_sign=False, dtype=np.float32
        )
        distinct = len(set(words.transform(titles).indices)) if titles else 0
        self.features = min(MOST_FEATURES, 2 ** math.ceil(math.log2(max(2 * distinct, 16))))
        self.words = words.set_params(n_features=self.features)
        self.weights = TfidfTransformer(sublinear_tf=True).fit(self.words.transform(titles))

    def __call__(self, titles: list[str]) -> csr_matrix:
        """(n, features) float32; the row of an empty title is empty."""
        if not titles:
            return csr_matrix((0, self.features), dtype=np.float32)
        return self.weights.transform(self.words.transform(titles)).astype(np.float32).tocsr()


class Nets(nn.Module):
    """R networks side by side: features -> hidden -> B, without shared weights.

    The second layers are one batched product.
    """

    def __init__(self, features: int, hidden: int, repetitions: int, buckets: int, dropout: float):
        super().__init__()
        self.shape = (repetitions, hidden)
        self.first = nn.EmbeddingBag(features, repetitions * hidden, mode="sum", sparse=True)
        self.bias = nn.Parameter(torch.zeros(repetitions * hidden))
        self.second = nn.Parameter(torch.empty(repetitions, hidden, buckets))
        self.second_bias = nn.Parameter(torch.zeros(repetitions, 1, buckets))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.first.weight, std=hidden**-0.5)
        nn.init.normal_(self.second, std=hidden**-0.5)

    def forward(
        self, columns: torch.Tensor, offsets: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Logits (R, n, B) of n titles given as flat (nnz,) columns and values with (n,) starts."""
        one = self.first(columns, offsets, per_sample_weights=values) + self.bias
        one = self.dropout(F.relu(one)).view(len(offsets), *self.shape).transpose(0, 1)
        return torch.baddbmm(self.second_bias, one, self.second)


def _train(
    nets: Nets,
    inputs: Titles,
    task: Task,
    hashes: np.ndarray,
    epochs: int,
    lr: float,
    batch: int,
    rng: np.random.Generator,
) -> None:
    x, truth, excluded = inputs(task.titles["train"]), task.truth["train"], task.excluded["train"]
    sparse = torch.optim.SparseAdam([nets.first.weight], lr)
    dense = torch.optim.Adam([nets.bias, nets.second, nets.second_bias], lr)
    with torch.no_grad():
        nets.second_bias.copy_(log_odds(hashes, truth, nets.second.shape[2]))
    nets.train()
    for _ in range(epochs):
        order = rng.permutation(x.shape[0])
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            target, known = bucket_targets(
                hashes, truth.take(rows), excluded.take(rows), nets.second.shape[2]
            )
            logits = nets(*_flat(x[rows], task.device))
            loss = F.binary_cross_entropy_with_logits(
                logits, target.to(task.device), known.to(task.device), reduction="sum"
            )
            sparse.zero_grad(), dense.zero_grad()
            (loss / len(rows)).backward()
            sparse.step(), dense.step()


def log_odds(hashes: np.ndarray, truth: Lists, buckets: int) -> torch.Tensor:
    """(R, 1, B) float32: the log-odds that a bucket is relevant to any datapoint.

    The biases start there.
    """
    counts = np.stack([np.bincount(h[truth.values], minlength=buckets) for h in hashes])
    return torch.from_numpy(counts / len(truth)).clamp(1e-4, 0.5).logit()[:, None].float()


def bucket_targets(
    hashes: np.ndarray, truth: Lists, excluded: Lists, buckets: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, n, B) float32 each: relevance, and 1 where it is known.

    It is unknown for a bucket that holds the label of a filter pair and no relevant label.
    """
    target = torch.zeros(len(hashes), len(truth), buckets)
    known, r = torch.ones_like(target), np.arange(len(hashes))[:, None]
    known[r, excluded.rows(), hashes[:, excluded.values]] = 0
    target[r, truth.rows(), hashes[:, truth.values]] = 1
    return target, torch.maximum(known, target)


def _flat(x: csr_matrix, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Columns (nnz,), starts (n,), values (nnz,) of a CSR matrix."""
    columns, starts = (
        torch.from_numpy(a.astype(np.int64)).to(device) for a in (x.indices, x.indptr[:-1])
    )
    return columns, starts, torch.from_numpy(x.data).to(device)


def label_scores(probability: torch.Tensor, hashes: torch.Tensor) -> torch.Tensor:
    """(n, L): the mean over r of the `probability` (R, n, B) of each label's bucket.

    `hashes` (R, L) holds the buckets.
    """
    total = torch.zeros(probability.shape[1], hashes.shape[1], device=probability.device)
    for one, buckets in zip(probability, hashes):
        total += one[:, buckets]
    return total / len(hashes)


@torch.no_grad()
def _predict(
    nets: Nets, x: csr_matrix, hashes: np.ndarray, excluded: Lists, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    n, num_labels = x.shape[0], hashes.shape[1]
    labels, scores = np.full((n, WIDTH), -1, np.int64), np.full((n, WIDTH), -np.inf, np.float32)
    width = min(num_labels, WIDTH + int(np.diff(excluded.offsets).max(initial=0)))
    step, buckets = max(1, min(1024, BUDGET // num_labels)), torch.from_numpy(hashes).to(device)
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        best = label_scores(nets(*_flat(x[rows], device)).sigmoid(), buckets).topk(width)
        score = best.values.cpu().numpy()
        labels[rows], scores[rows] = top(
            best.indices.cpu().numpy(), score, excluded.take(rows), WIDTH
        )
    return labels, scores

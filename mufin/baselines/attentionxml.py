"""AttentionXML on titles: attention over words per node of a label tree (You et al., 2019).

Settings. Published (released code, Amazon-670K) are an ensemble of three trees, clusters of at most
8 labels, 8 children per node, dropout 0.5 and the mean of weights over epochs: the first of
`SETTINGS` and defaults of `trained`. Adapted to titles, few datapoints and one core, and the same
for all settings: embedding, BiLSTM and MLP of 128, 32 and 32 (published: 300, 512, 512 and 256),
rate 0.008, batches of 32, 64 parents (published: 0.001, 200, 160), 15 epochs for the first level
and 8 for the next (published: 10 each, on 490,000 datapoints). Tried on valid in addition: dropout
0.3, and fewer epochs, in place of the publication's early stopping.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.baselines.shared.tuning import Settings, Tuned, best
from mufin.clustering import balanced_halves
from mufin.ragged import Lists, is_in
from mufin.ranking.order import best_first, top


@dataclass(frozen=True, slots=True)
class LevelSettings:
    """How each level of each tree trains; names as in the publication's code."""

    embedding: int
    hidden: int
    linear: int
    dropout: float
    epochs: tuple[int, int]  # of the first level, of each later one
    lr: float
    batch: int
    parents: int  # C, the parents whose children are scored


SETTINGS = (  # published first
    {"dropout": 0.5, "epochs": (15, 8)},
    {"dropout": 0.3, "epochs": (15, 8)},
    {"dropout": 0.5, "epochs": (10, 5)},
    {"dropout": 0.3, "epochs": (10, 5)},
)


def baseline(task: Task, seed: int, *, settings: Sequence[Settings] = SETTINGS) -> Tuned:
    """The best of `settings` on valid, by `trained`."""
    return best(task, seed, settings, trained)


def trained(
    task: Task,
    seed: int,
    *,
    trees: int = 3,
    leaf: int = 8,
    fanout: int = 8,
    widest: int = 2048,
    parents: int = 64,
    embedding: int = 128,
    hidden: int = 32,
    linear: int = 32,
    dropout: float = 0.5,
    epochs: tuple[int, int] = (15, 8),
    lr: float = 8e-3,
    batch: int = 32,
) -> Predict:
    """A label tree with a network per level: a BiLSTM on the words and an attention per node.

    As published: embedded words pass a BiLSTM; each node has a softmax attention over the words of
    the title, and all nodes of a level share an MLP; the loss is binary cross-entropy. The tree
    comes from balanced 2-means on the labels' TF-IDF centroids, split until no cluster holds more
    than `leaf` (M) labels, and is then made shallow and wide: each node has `fanout` (K) children,
    the first level at most `widest` nodes, so that the depth follows from L (two levels under
    16,000 labels, four at 670,000). A level trains on the children of `parents` (C) parents, those
    of the relevant labels first, then the best predicted. It starts from the embedding, BiLSTM and
    MLP of the level above, with a new attention. The score of a label is the product of the
    probabilities on its path, found by beam search. Weights are averaged over the last epochs
    (SWA). `trees` is the size of the ensemble.

    Differences: word vectors are learnt from the train titles alone (no pretrained GloVe), and
    words seen once share a vector; a fixed number of epochs in place of early stopping on valid;
    no gradient clipping; the last bias starts at -3, since few nodes are relevant; a node with the
    label of a filter pair and no relevant label is left out of the loss; at prediction the beam is
    wide enough to find `WIDTH` labels. Under 31,000 labels the publication uses no tree and one
    network, which finds less here.
    """
    settings = LevelSettings(embedding, hidden, linear, dropout, epochs, lr, batch, parents)
    words = Words(task.titles["train"])
    centroids = label_centroids(task.titles["train"], task.truth["train"], task.num_labels)
    forest = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for number in range(trees):
            rng = np.random.default_rng([seed, number])
            tree = tree_of(centroids, leaf, fanout, widest, rng)
            forest.append((tree, _train(tree, words, task, settings, rng)))

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        excluded = task.excluded[split]
        width = WIDTH + int(np.diff(excluded.offsets).max(initial=0))
        enough = max(
            parents, -(-width // max(leaf // 2, 1))
        )  # clusters hold leaf / 2 labels or more
        found = [
            beam(tree, nets, words(task.titles[split]), enough, width) for tree, nets in forest
        ]
        labels, scores = found[0] if trees == 1 else mean_of(found)
        return top(labels, scores, excluded, WIDTH)

    return predict


class Words:
    """Titles to word numbers: 0 is padding.

    1 is a word seen less than twice in the train titles, or an empty title.
    """

    def __init__(self, titles: list[str]):
        counts = Counter(word for title in titles for word in self._split(title))
        self.number = {
            word: i
            for i, word in enumerate(sorted(w for w, count in counts.items() if count > 1), 2)
        }
        self.size = len(self.number) + 2

    def __call__(self, titles: list[str], most: int = 128) -> np.ndarray:
        """(n, T) int64, the first `most` words of each title."""
        rows = [
            [self.number.get(word, 1) for word in self._split(title)[:most]] or [1]
            for title in titles
        ]
        tokens = np.zeros((len(rows), max(map(len, rows), default=1)), np.int64)
        for row, numbers in zip(tokens, rows):
            row[: len(numbers)] = numbers
        return tokens

    @staticmethod
    def _split(title: str) -> list[str]:
        return re.findall(r"(?u)\b\w+\b", title.lower())


@dataclass(frozen=True, slots=True)
class Tree:
    """Shallow and wide; the nodes of the last level are the labels."""

    sizes: list[int]  # nodes per level
    children: list[np.ndarray]  # per level: (nodes of the level above, most children), -1 padded
    node: list[np.ndarray]  # per level: (L,) the node that a label is under


def label_centroids(titles: list[str], truth: Lists, num_labels: int) -> sp.csr_matrix:
    """(L, V) float32, rows of unit norm: the sum of the TF-IDF of each label's train datapoints.

    Zero where a label has none.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    if not any(map(vectorizer.build_analyzer(), titles)):
        return sp.csr_matrix((num_labels, 1), dtype=np.float32)
    relevance = sp.csr_matrix(
        (np.ones(len(truth.values), np.float32), truth.values, truth.offsets),
        (len(truth), num_labels),
    )
    return normalize(relevance.T.tocsr() @ vectorizer.fit_transform(titles)).tocsr()


def tree_of(
    centroids: sp.csr_matrix, leaf: int, fanout: int, widest: int, rng: np.random.Generator
) -> Tree:
    """The tree over labels that are halved until no cluster holds more than `leaf`.

    The clusters are the last level above the labels. Each level above has `fanout` times fewer
    nodes, until one has at most `widest`. `fanout` is a power of two.
    """
    clusters, halvings = [np.arange(centroids.shape[0])], 0
    while max(map(len, clusters)) > leaf:
        clusters, halvings = (
            [c[half] for c in clusters for half in balanced_halves(centroids[c], rng, rounds=50)],
            halvings + 1,
        )
    cluster_of = np.empty(centroids.shape[0], np.int64)
    cluster_of[np.concatenate(clusters)] = np.repeat(
        np.arange(len(clusters)), list(map(len, clusters))
    )
    step, levels = fanout.bit_length() - 1, [halvings] if halvings else []
    while levels and 2 ** levels[0] > widest:
        levels.insert(0, max(levels[0] - step, 0))
    node = [cluster_of >> (halvings - level) for level in levels] + [np.arange(centroids.shape[0])]
    sizes = [2**level for level in levels] + [centroids.shape[0]]
    return Tree(
        sizes,
        [
            _children(above, below, count)
            for above, below, count in zip([np.zeros_like(cluster_of), *node], node, [1, *sizes])
        ],
        node,
    )


def _children(above: np.ndarray, below: np.ndarray, count: int) -> np.ndarray:
    """(count, most) the distinct `below` (L,) of each `above` (L,)."""
    pairs = np.unique(np.stack([above, below], 1), axis=0)
    place = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    children = np.full((count, place.max() + 1), -1, np.int64)
    children[pairs[:, 0], place] = pairs[:, 1]
    return children


def nodes_of(labels: Lists, node: np.ndarray, size: int) -> Lists:
    """The distinct nodes of a level that each row's labels are under.

    `node` (L,) is the node of each label.
    """
    keys = np.unique(labels.rows() * size + node[labels.values])
    return Lists.of_pairs(keys // size, keys % size, len(labels))


class LevelNetwork(nn.Module):
    """Words to a logit for each node of one level."""

    def __init__(self, vocabulary: int, nodes: int, first: bool, s: LevelSettings):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, s.embedding, padding_idx=0, sparse=True)
        self.lstm = nn.LSTM(s.embedding, s.hidden, batch_first=True, bidirectional=True)
        self.attention = nn.Embedding(nodes, 2 * s.hidden, sparse=not first)
        self.first, self.last = nn.Linear(2 * s.hidden, s.linear), nn.Linear(s.linear, 1)
        self.on_words, self.on_states = nn.Dropout(0.2), nn.Dropout(s.dropout)
        for weight in (self.attention.weight, self.first.weight, self.last.weight):
            nn.init.xavier_uniform_(weight)
        # few nodes are relevant: the probabilities start near 0.05 and not at one half
        nn.init.constant_(self.last.bias, -3.0)

    def forward(self, tokens: torch.Tensor, nodes: torch.Tensor | None = None) -> torch.Tensor:
        """(n, S) logits of `nodes` (n, S) of the level, or of all its nodes where None.

        `tokens` (n, T) int64, 0 = padding.
        """
        there = tokens > 0
        packed = pack_padded_sequence(
            self.on_words(self.embedding(tokens)), there.sum(1).cpu(), True, False
        )
        states = self.on_states(
            pad_packed_sequence(self.lstm(packed)[0], True, total_length=tokens.shape[1])[0]
        )
        weights = self.attention.weight if nodes is None else self.attention(nodes)
        # the MLP's first matrix is applied before the attention's mean: T products per title
        # instead of S
        attended = (
            attend(states, F.linear(states, self.first.weight), there, weights) + self.first.bias
        )
        return self.last(F.relu(attended)).squeeze(-1)

    def warm_start(self, before: LevelNetwork) -> None:
        """Copy embedding, BiLSTM and MLP of the level above; the attention is this level's own."""
        for name in ("embedding", "lstm", "first", "last"):
            self.get_submodule(name).load_state_dict(before.get_submodule(name).state_dict())


def attend(
    states: torch.Tensor, values: torch.Tensor, there: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """(n, S, e): for each node a weighted mean over words of `values` (n, T, e).

    The weights are the softmax over words of <weight, state (n, T, d)>. `there` (n, T) bool, at
    least one per row; `weights` (S, d) for all datapoints or (n, S, d).
    """
    scores = (weights @ states.transpose(1, 2)).masked_fill(~there[:, None], -torch.inf)
    return scores.softmax(-1) @ values


def _train(
    tree: Tree, words: Words, task: Task, s: LevelSettings, rng: np.random.Generator
) -> list[LevelNetwork]:
    """One network per level, the first level's first."""
    tokens = words(task.titles["train"])
    nets: list[LevelNetwork] = []
    for level in range(len(tree.sizes)):
        truth = nodes_of(task.truth["train"], tree.node[level], tree.sizes[level])
        unknown = nodes_of(task.excluded["train"], tree.node[level], tree.sizes[level]).minus(truth)
        candidates = None
        if level:
            relevant = nodes_of(task.truth["train"], tree.node[level - 1], tree.sizes[level - 1])
            candidates = chosen_parents(tree, nets, tokens, relevant, s.parents)
        net = LevelNetwork(words.size, tree.sizes[level], not level, s).to(task.device)
        if level:
            net.warm_start(nets[-1])
        nets.append(_fit(net, tokens, truth, unknown, candidates, tree.children[level], s, rng))
    return nets


def chosen_parents(
    tree: Tree, nets: list[LevelNetwork], tokens: np.ndarray, truth: Lists, top: int
) -> np.ndarray:
    """(N, C) nodes of the last trained level: the relevant ones, then the best predicted.

    -1 where there are fewer.
    """
    most = int(np.diff(truth.offsets).max(initial=0))
    nodes, scores = beam(tree, nets, tokens, top, min(top + most, tree.sizes[len(nets) - 1]))
    missed = truth.minus(Lists(np.arange(len(nodes) + 1) * nodes.shape[1], nodes.ravel()))
    extra = np.full((len(nodes), most), -1, np.int64)
    extra[missed.rows(), np.arange(len(missed.values)) - missed.offsets[missed.rows()]] = (
        missed.values
    )
    nodes = np.concatenate([nodes, extra], 1)
    scores = np.concatenate([scores, np.zeros(extra.shape, np.float32)], 1) + 2 * is_in(
        nodes, truth
    )
    scores[nodes < 0] = -np.inf
    return np.take_along_axis(nodes, best_first(scores, nodes, top), 1)


def _fit(
    net: LevelNetwork,
    tokens: np.ndarray,
    truth: Lists,
    unknown: Lists,
    parents: np.ndarray | None,
    children: np.ndarray,
    s: LevelSettings,
    rng: np.random.Generator,
) -> LevelNetwork:
    """The mean of the network's weights at the ends of the last half of its epochs."""
    epochs, device = s.epochs[int(parents is not None)], net.first.weight.device
    sparse = [net.embedding.weight] + ([net.attention.weight] if net.attention.sparse else [])
    dense = [p for p in net.parameters() if all(p is not q for q in sparse)]
    optimizers = [torch.optim.SparseAdam(sparse, s.lr), torch.optim.Adam(dense, s.lr)]
    averaged = torch.optim.swa_utils.AveragedModel(net)
    for epoch in range(epochs):
        for rows in np.array_split(
            order := rng.permutation(len(tokens)), max(1, round(len(order) / s.batch))
        ):
            nodes = candidates_of(children, parents[rows]) if parents is not None else None
            loss = _loss(
                net.train(), tokens[rows], nodes, truth.take(rows), unknown.take(rows), device
            )
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        if 2 * epoch + 1 >= epochs:
            averaged.update_parameters(net)
    assert isinstance(averaged.module, LevelNetwork)
    return averaged.module.eval()


def _loss(
    net: LevelNetwork,
    tokens: np.ndarray,
    nodes: np.ndarray | None,
    truth: Lists,
    unknown: Lists,
    device: torch.device,
) -> torch.Tensor:
    """Binary cross-entropy, the mean over the known candidates that are not padding."""
    all_nodes = (
        nodes
        if nodes is not None
        else np.broadcast_to(
            np.arange(len(net.attention.weight)), (len(tokens), len(net.attention.weight))
        )
    )
    target = torch.from_numpy(is_in(all_nodes, truth).astype(np.float32)).to(device)
    known = torch.from_numpy(((all_nodes >= 0) & ~is_in(all_nodes, unknown)).astype(np.float32)).to(
        device
    )
    logits = net(
        shortened(tokens, device),
        None if nodes is None else torch.from_numpy(np.maximum(nodes, 0)).to(device),
    )
    return F.binary_cross_entropy_with_logits(
        logits, target, known, reduction="sum"
    ) / known.sum().clamp(min=1)


def shortened(tokens: np.ndarray, device: torch.device) -> torch.Tensor:
    """(n, T) without the columns that hold padding only."""
    return torch.from_numpy(tokens[:, : int((tokens > 0).sum(1).max(initial=1))]).to(device)


def candidates_of(children: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """(n, C * most children) nodes, -1 where there is none; `parents` (n, C), -1 = none."""
    return np.where((parents >= 0)[..., None], children[parents], -1).reshape(len(parents), -1)


@torch.no_grad()
def beam(
    tree: Tree, nets: list[LevelNetwork], tokens: np.ndarray, top: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n, width) the best nodes of the level that nets[-1] scores, and their products of
    probabilities.

    On each level above, only the children of the best `top` nodes are scored; -1 and -inf where
    there are fewer.
    """
    device, found = nets[0].first.weight.device, []
    for rows in _batches(len(tokens), 256):
        short, nodes, scores = (
            shortened(tokens[rows], device),
            np.zeros((len(rows), 1), np.int64),
            np.zeros((len(rows), 1)),
        )
        for level, net in enumerate(nets):
            nodes, scores = _best_children(
                net,
                short,
                tree.children[level],
                nodes,
                scores,
                not level,
                width if level == len(nets) - 1 else top,
            )
        found.append((nodes, scores))
    if not found:
        return np.full((0, width), -1, np.int64), np.full((0, width), -np.inf, np.float32)
    return np.concatenate([f[0] for f in found]), np.exp(
        np.concatenate([f[1] for f in found])
    ).astype(np.float32)


def _best_children(
    net: LevelNetwork,
    tokens: torch.Tensor,
    children: np.ndarray,
    parents: np.ndarray,
    chance: np.ndarray,
    first: bool,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The best `width` children and the logarithms of their probabilities.

    Fewer if there are fewer.
    """
    nodes = candidates_of(children, parents)
    logits = net(
        tokens, None if first else torch.from_numpy(np.maximum(nodes, 0)).to(tokens.device)
    )
    score = F.logsigmoid(logits).cpu().numpy() + np.repeat(chance, children.shape[1], 1)
    score = np.where(nodes >= 0, score, -np.inf)
    order = best_first(score, nodes, width)
    best = np.take_along_axis(score, order, 1)
    return np.where(best > -np.inf, np.take_along_axis(nodes, order, 1), -1), best


def _batches(n: int, size: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + size, n)) for start in range(0, n, size))


def mean_of(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and mean scores of several trees' (n, width) predictions.

    A label that a tree does not find scores 0 there.
    """
    labels, scores = (np.concatenate([f[i] for f in found], 1) for i in (0, 1))
    order = np.argsort(labels, 1, kind="stable")
    labels, scores = np.take_along_axis(labels, order, 1), np.take_along_axis(scores, order, 1)
    scores = np.where(labels >= 0, scores / len(found), 0)
    total = scores.copy()
    for shift in range(1, len(found)):
        total[:, :-shift] += np.where(labels[:, :-shift] == labels[:, shift:], scores[:, shift:], 0)
    repeated = np.zeros(labels.shape, bool)
    repeated[:, 1:] = labels[:, 1:] == labels[:, :-1]
    return np.where(repeated, -1, labels), total

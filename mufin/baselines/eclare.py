"""ECLARE on titles.

Mittal et al., "ECLARE: Extreme Classification with Label Graph Correlations", WWW 2021.

As published: a label graph comes from random walks with restart on the datapoint-label graph (400
steps, restart 0.8, the most visited neighbours kept, very popular labels cut off, symmetric
normalisation). A title is the TF-IDF sum of its word vectors. A label's vector is attention over
its text, its text smoothed over the graph (GAME), and a free refinement vector. Meta-labels are
balanced clusters of graph-smoothed label centroids, with vectors of the same form. Word vectors are
learnt on the meta-labels of a first clustering and then frozen. The meta-label scores of the beam,
spread over the graph, give the shortlist. The loss is binary cross-entropy on positives and the
shortlist's negatives. The final score joins label and meta-label.

Differences: word vectors start at random (pretrained fastText vectors are not available); one tree,
where the paper averages three; SiameseXML's residual block, without spectral norm in it or in the
attention; no edge is pruned by the distance of its labels' texts; the first clustering uses a
random projection of TF-IDF centroids; the weight of the joint score (the paper's product is beta
0.5) is chosen on valid.

Settings. The defaults of `trained`, which are the first of `SETTINGS`, are published (released
code, LF-AmazonTitles-131K): 300 dimensions, single words, dropout 0.2, batches of 255, rate 0.008,
20 epochs for the word vectors and 10 for the meta-labels, 400 steps of a walk with restart 0.8, 10
neighbours, about 4 labels per meta-label, a beam of 100. Adapted to few titles, and the same for
all settings: 20 epochs for the labels (published: 10). Tried on valid in addition: dropout 0.5,
with batches of 255 and of 128, and dropout 0.7 with batches of 128.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, normalize

from mufin.baselines.shared.shortlists import (
    batch_pairs,
    decay,
    distinct,
    mixed,
    negatives_of,
    positives_of,
    step,
)
from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.baselines.shared.text_bags import Bags, Residual, WordBag, bags_of, title_bags
from mufin.baselines.shared.tuning import Settings, Tuned, best
from mufin.clustering import balanced_halves
from mufin.progress import progress
from mufin.ragged import Lists, offsets_of

BETAS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


SETTINGS = (  # published first
    {"dropout": 0.2, "batch": 255},
    {"dropout": 0.5, "batch": 255},
    {"dropout": 0.5, "batch": 128},
    {"dropout": 0.7, "batch": 128},
)


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
    dropout: float = 0.2,
    walk: int = 400,
    restart: float = 0.8,
    neighbours: int = 10,
    most_popular: int = 500,
    leaf: int = 4,
    words_epochs: int = 20,
    meta_epochs: int = 10,
    epochs: int = 20,
    batch: int = 255,
    lr: float = 0.008,
    beam: int = 100,
    negatives: int = 100,
) -> Predict:
    """Trained on train; the weight of the joint score chosen on valid. Text only.

    `walk`, `restart`, `neighbours`, `most_popular`: see `label_graph`. A meta-label has at most
    `leaf` labels. A datapoint has `beam` meta-labels, and `negatives` labels of its shortlist.
    """
    with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        bags, num_terms = title_bags(task.titles, ngrams, min_count)
        truth = positives_of(task)
        graph = label_graph(truth, task.num_labels, walk, restart, neighbours, most_popular, rng)
        words = WordBag(num_terms, dim).to(task.device)
        plan = Plan(dropout, batch, lr, rng, task.device)
        first = MetaLabels(
            clusters_of(words, bags["train"], truth, graph, leaf, rng), graph, neighbours
        )
        first.head(words, bags, truth, plan, words_epochs, learn_words=True)
        vectors = {name: words.all(some) for name, some in bags.items()}
        meta = MetaLabels(
            clusters_of(words, bags["train"], truth, graph, leaf, rng), graph, neighbours
        )
        meta_head = meta.head(words, bags, truth, plan, meta_epochs, learn_words=False)
        width = WIDTH + max(int(np.diff(e.offsets).max(initial=0)) for e in task.excluded.values())
        found, _ = meta.shortlist(meta_head, vectors["train"], beam, max(width, negatives))
        head = label_head(vectors, truth, graph, negatives_of(found, task), plan, negatives, epochs)

    def scores(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found, spread = meta.shortlist(meta_head, vectors[split], beam, width)
        return found, head.log_probability(vectors[split], found), np.log(np.maximum(spread, 1e-12))

    return mixed(scores, task, BETAS)


def label_graph(
    truth: Lists,
    num_labels: int,
    walk: int,
    restart: float,
    neighbours: int,
    most_popular: int,
    rng: np.random.Generator,
) -> sp.csr_matrix:
    """(L, L) the pruned walks, normalised: D_r^-1/2 G D_c^-1/2.

    Each label is connected to itself and to the `neighbours` labels that its walk visits most. A
    label of more than `most_popular` train datapoints is connected to itself alone: walks reach it
    from everywhere.
    """
    counts = np.bincount(truth.values, minlength=num_labels)
    visits = random_walks(
        truth.only(counts[truth.values] <= most_popular), num_labels, walk, restart, rng
    )
    kept = top_of_rows(visits, neighbours)
    return symmetric(kept + sp.diags((kept.diagonal() == 0).astype(np.float32)))


def random_walks(
    truth: Lists,
    num_labels: int,
    walk: int,
    restart: float,
    rng: np.random.Generator,
    chunk: int = 16384,
) -> sp.csr_matrix:
    """(L, L) rows of sum 1: how often a walk of `walk` steps from each label visits each label.

    The walk of a label without datapoints stays there. A step goes from a label to one of its
    datapoints, drawn at random, and from that to one of its labels. With chance `restart` a step
    starts again from the walk's first label.
    """
    by_label, parts = truth.transpose(num_labels), []
    for start in range(0, num_labels, chunk):
        home = np.arange(start, min(start + chunk, num_labels))
        there = np.diff(by_label.offsets)[home] > 0
        visited = np.repeat(home[:, None], walk, axis=1)
        here = home[there]
        for i in range(walk):
            again = rng.random(len(here)) < restart
            here = _drawn(truth, _drawn(by_label, np.where(again, home[there], here), rng), rng)
            visited[there, i] = here
        rows = np.repeat(np.arange(len(home)), walk)
        visits = sp.coo_matrix(
            (np.ones(rows.size, np.float32), (rows, visited.reshape(-1))), (len(home), num_labels)
        )
        parts.append(visits.tocsr() / walk)
    return sp.vstack(parts, "csr")


def _drawn(lists: Lists, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random value of each of `rows`, none of them empty."""
    lengths = np.diff(lists.offsets)[rows]
    return lists.values[lists.offsets[rows] + (rng.random(len(rows)) * lengths).astype(np.int64)]


def top_of_rows(matrix: sp.csr_matrix, k: int) -> sp.csr_matrix:
    """The `k` largest entries of each row, largest first; equal entries by column."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    order = order[np.arange(len(rows)) - matrix.indptr[rows] < k]
    indptr = offsets_of(np.minimum(np.diff(matrix.indptr), k))
    return sp.csr_matrix((matrix.data[order], matrix.indices[order], indptr), matrix.shape)


def symmetric(graph: sp.csr_matrix) -> sp.csr_matrix:
    """D_r^-1/2 G D_c^-1/2, float32."""
    rows, columns = (np.asarray(graph.sum(axis)).reshape(-1) for axis in (1, 0))
    return (
        (
            sp.diags(np.maximum(rows, 1e-12) ** -0.5)
            @ graph
            @ sp.diags(np.maximum(columns, 1e-12) ** -0.5)
        )
        .tocsr()
        .astype(np.float32)
    )


def clusters_of(
    words: WordBag,
    bags: Bags,
    truth: Lists,
    graph: sp.csr_matrix,
    leaf: int,
    rng: np.random.Generator,
) -> sp.csr_matrix:
    """(C, L) 0/1: the meta-label of each label.

    Meta-labels are balanced clusters of the labels' graph-smoothed means of train datapoints.
    """
    relevant = sp.csr_matrix(
        (np.ones(len(truth.values), np.float32), truth.values, truth.offsets),
        (len(truth), graph.shape[0]),
    )
    centroids = graph @ (relevant.T @ normalize(words.all(bags), dim=1).cpu().numpy())
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    cluster = balanced_clusters(centroids, leaf, rng)
    return sp.csr_matrix((np.ones(len(cluster), np.float32), (cluster, np.arange(len(cluster)))))


def balanced_clusters(rows: np.ndarray, leaf: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) cluster ids from 0: parts of equal size, halved by spherical 2-means.

    Until none has more than `leaf` rows.
    """
    cluster, todo, done = np.zeros(len(rows), np.int64), [np.arange(len(rows))], 0
    while todo:
        members = todo.pop()
        if len(members) <= leaf:
            cluster[members] = done
            done += 1
            continue
        small, large = balanced_halves(rows[members], rng)
        todo += [members[np.sort(large)], members[np.sort(small)]]
    return cluster


@dataclass(frozen=True, slots=True)
class Plan:
    """How all parts train."""

    dropout: float
    batch: int
    lr: float
    rng: np.random.Generator
    device: torch.device

    def batches(self, rows: np.ndarray) -> list[np.ndarray]:
        return np.array_split(self.rng.permutation(rows), max(1, math.ceil(len(rows) / self.batch)))


class Head(nn.Module):
    """Logits <f(x), w_l> + b_l of labels, or of meta-labels.

    w_l is the attention over {f_text(text), f_graph(smoothed text), free vector}. `texts` and
    `smoothed` (num, dim) are the labels' summed word vectors and these over the graph; the free
    vectors start from `smoothed`.
    """

    def __init__(self, texts: Tensor, smoothed: Tensor, dropout: float, free: bool):
        super().__init__()
        (num, dim), kinds = texts.shape, 2 + free
        self.texts, self.smoothed = texts, smoothed
        self.document, self.text, self.graph = (Residual(dim, dropout) for _ in range(3))
        self.query, self.mix, self.drop = (
            nn.Linear(dim, dim),
            nn.Linear(kinds * dim, kinds, bias=False),
            nn.Dropout(0.2),
        )
        self.bias = nn.Embedding.from_pretrained(torch.zeros(num, 1), freeze=False, sparse=True)
        self.free = (
            nn.Embedding.from_pretrained(smoothed.clone(), freeze=False, sparse=True)
            if free
            else None
        )
        self.to(texts.device)

    def vectors(self, ids: Tensor) -> Tensor:
        """(k, dim) w_l of labels `ids` (k,)."""
        parts = [self.text(self.texts[ids]), self.graph(self.smoothed[ids])]
        if self.free is not None:
            parts.append(self.free(ids))
        kinds = torch.stack(parts, 1)
        weight = self.mix(self.query(torch.relu(self.drop(kinds))).flatten(1)).softmax(1)
        return (weight[:, :, None] * kinds).sum(1)

    def all_logits(self, x: Tensor) -> Tensor:
        """(n, num) for all labels."""
        ids = torch.arange(len(self.texts), device=x.device)
        return self.document(x) @ self.vectors(ids).T + self.bias(ids)[:, 0]

    def logits(self, x: Tensor, ids: np.ndarray) -> Tensor:
        """(n, K) for the labels `ids` (n, K) of each datapoint; undefined where an id is -1."""
        labels, place = distinct(ids, x.device)
        return (self.document(x) @ self.vectors(labels).T + self.bias(labels)[:, 0]).gather(
            1, place
        )

    @torch.no_grad()
    def log_probability(self, x: Tensor, ids: np.ndarray, chunk: int = 1024) -> np.ndarray:
        """(n, K) log sigmoid of the logits of `ids` (n, K); 0 where an id is -1."""
        self.eval()
        out = np.zeros(ids.shape, np.float32)
        for rows in (slice(s, s + chunk) for s in range(0, len(ids), chunk)):
            out[rows] = logsigmoid(self.logits(x[rows], ids[rows])).cpu().numpy()
        return np.where(ids >= 0, out, 0)

    def optimisers(self, lr: float, words: WordBag | None = None) -> list[torch.optim.Optimizer]:
        """One for the weights with sparse gradients, one for the rest."""
        sparse = [e.weight for e in (self.bias, self.free) if e is not None] + (
            list(words.parameters()) if words else []
        )
        dense = [
            p for name, p in self.named_parameters() if name not in ("bias.weight", "free.weight")
        ]
        return [torch.optim.SparseAdam(sparse, lr=lr), torch.optim.Adam(dense, lr=lr)]


@dataclass(frozen=True, slots=True)
class MetaLabels:
    """Clusters of labels, used as labels: relevant where one of their labels is.

    The title of a meta-label is all titles of its labels.
    """

    of: sp.csr_matrix  # (C, L) 0/1
    graph: sp.csr_matrix  # (L, L), see `label_graph`
    neighbours: int  # kept per meta-label in the graph of meta-labels

    def head(
        self,
        words: WordBag,
        bags: dict[str, Bags],
        truth: Lists,
        plan: Plan,
        epochs: int,
        learn_words: bool,
    ) -> Head:
        """A head trained on all meta-labels by binary cross-entropy.

        It has no free vectors while the word vectors learn.
        """
        titles = bags_of(l2(self.of @ bags["labels"].matrix(words.words.num_embeddings)))
        between = on_device(
            symmetric(top_of_rows((self.of @ self.graph @ self.of.T).tocsr(), self.neighbours)),
            plan.device,
        )
        labels = sp.csr_matrix(
            (np.ones(len(truth.values), np.float32), truth.values, truth.offsets),
            (len(truth), self.of.shape[1]),
        )
        relevant = (labels @ self.of.T).tocsr().minimum(1)
        texts, x = words.all(titles), None if learn_words else words.all(bags["train"])
        head = Head(texts, between @ texts, plan.dropout, not learn_words)
        everything = np.arange(self.of.shape[0])
        optimisers, useful = (
            head.optimisers(plan.lr, words if learn_words else None),
            np.flatnonzero(np.diff(truth.offsets)),
        )
        for epoch in progress(range(epochs), "ECLARE, meta-labels", "epochs"):
            decay(optimisers, plan.lr, epoch, epochs)
            head.train()
            for rows in plan.batches(useful):
                if learn_words:
                    head.texts = words(titles, everything)
                    head.smoothed = between @ head.texts
                if x is None:
                    mine = words(bags["train"], rows)
                else:
                    mine = x[torch.from_numpy(rows).to(plan.device)]
                target = torch.from_numpy(relevant[rows].toarray()).to(plan.device)
                step(
                    optimisers,
                    binary_cross_entropy_with_logits(head.all_logits(mine), target, reduction="sum")
                    / len(rows),
                )
        return head.eval()

    @torch.no_grad()
    def shortlist(
        self, head: Head, x: Tensor, beam: int, width: int, chunk: int = 1024
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, width) labels, best first, -1 padded, and their scores.

        These are the scores of the `beam` best meta-labels, spread over the graph. The beam is
        wider where that many meta-labels hold fewer than `width` labels.
        """
        width, smallest = min(width, self.of.shape[1]), max(1, int(self.of.sum(1).min()))
        beam = min(self.of.shape[0], max(beam, math.ceil(width / smallest)))
        labels, scores = (
            np.full((len(x), width), -1, np.int64),
            np.zeros((len(x), width), np.float32),
        )
        for start in range(0, len(x), chunk):
            best = head.all_logits(x[start : start + chunk]).sigmoid().topk(beam, 1)
            values, index = best.values.clamp(min=1e-12).cpu().numpy(), best.indices.cpu().numpy()
            metas = sp.csr_matrix(
                (values.reshape(-1), index.reshape(-1), np.arange(0, index.size + 1, beam)),
                (len(index), self.of.shape[0]),
            )
            top = top_of_rows((metas @ self.of @ self.graph).tocsr(), width)
            there = np.arange(width) < np.diff(top.indptr)[:, None]
            labels[start : start + chunk][there], scores[start : start + chunk][there] = (
                top.indices,
                top.data,
            )
        return labels, scores


def label_head(
    vectors: dict[str, Tensor],
    truth: Lists,
    graph: sp.csr_matrix,
    wrong: np.ndarray,
    plan: Plan,
    negatives: int,
    epochs: int,
) -> Head:
    """A head trained on labels, by binary cross-entropy on all positives and `negatives` of
    `wrong`.

    Word vectors are frozen.
    """
    head = Head(
        vectors["labels"], on_device(graph, plan.device) @ vectors["labels"], plan.dropout, True
    )
    optimisers, useful = head.optimisers(plan.lr), np.flatnonzero(np.diff(truth.offsets))
    for epoch in progress(range(epochs), "ECLARE, labels", "epochs"):
        decay(optimisers, plan.lr, epoch, epochs)
        head.train()
        for rows in plan.batches(useful):
            ids, target = batch_pairs(truth.take(rows), wrong[rows], negatives, plan.rng)
            logits = head.logits(vectors["train"][torch.from_numpy(rows).to(plan.device)], ids)
            relevant = torch.from_numpy(target).to(plan.device)  # -1 = padding
            loss = binary_cross_entropy_with_logits(
                logits, relevant.clamp(min=0).float(), reduction="none"
            )
            step(optimisers, loss.masked_fill(relevant < 0, 0).sum() / len(rows))
    return head.eval()


def l2(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Rows of unit norm."""
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).reshape(-1))
    return (sp.diags(1 / np.maximum(norm, 1e-12)) @ matrix).tocsr().astype(np.float32)


def on_device(matrix: sp.csr_matrix, device: torch.device) -> Tensor:
    """The same as a sparse tensor."""
    coo = matrix.tocoo()
    where = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    tensor = torch.sparse_coo_tensor(
        where, torch.from_numpy(coo.data), coo.shape, check_invariants=True
    )
    return tensor.coalesce().to(device)

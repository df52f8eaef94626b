"""The products that can be answers: the labels of the index, and those added or changed since.

An added product has no training: its classifier is its own vector (alpha = 1, MUFIN Table 4), and
it has no centroid, no frequency and no votes. A changed label keeps what training gave it (eta,
alpha, centroid, frequency); its bag and vector are those of its new title and pictures.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from mufin.nn.bags import Bag
from mufin.nn.embedding import Embedded, joint_rows, joint_vectors
from mufin.nn.own_scores import OwnScores
from mufin.ragged import Lists
from mufin.ranking.predictor import Predictor
from mufin.ranking.scoring import LabelSides, classifier_scores, label_sides
from mufin.retrieval.augmented import searched_rows
from mufin.serving.embedded import One
from mufin.serving.growing import GrowingRows
from mufin.serving.threads import one_thread

FEW = 4  # questions at once that are scored by one thread
SIDES = 2**27  # numbers of the label sides that are computed once; where more, per question


@dataclass(frozen=True, slots=True)
class OwnLabel:
    """A label that was added or changed since the index was built."""

    embedded: One
    found: One  # by the networks that search
    classifiers: list[np.ndarray]  # w by each member, (D,)


class Labels:
    """L labels of the index, with the ids 0 to L - 1, and A added ones above.

    Searches and scores are those of the predictor where nothing was added or changed.
    """

    def __init__(self, predictor: Predictor):
        self.predictor, self.index = predictor, predictor.index
        self.base = self.count = len(self.index)
        self.alive = np.ones(self.base, bool)  # (capacity,): can be answers
        self.is_own = np.zeros(self.base, bool)  # (capacity,): in `own`
        self.own: dict[int, OwnLabel] = {}
        self.frequency = self.index.frequency
        source = self.index.neighbours.source
        self.search_rows = source.rows.shape[1]
        self.added = GrowingRows(self.search_rows)
        self.has_rows = np.zeros(self.base, bool)
        self.has_rows[source.label[source.label >= 0]] = True
        self.untouched = True  # no label of the index was changed or removed
        self._log_frequency = np.zeros(0, np.float32)

    # Changes

    def new_label(self) -> int:
        """The id of a label that is added; it is no answer before `put`."""
        label = self.count
        self.count += 1
        if self.count > len(self.alive):
            room = max(2 * len(self.alive), 16)
            self.alive, self.is_own, self.has_rows = (
                np.concatenate([a, np.zeros(room - len(a), bool)])
                for a in (self.alive, self.is_own, self.has_rows)
            )
        return label

    def put(self, label: int, embedded: One, found: One) -> None:
        """Gives a label the bag `embedded`, and by the networks that search, `found`."""
        self.own[label] = OwnLabel(embedded, found, self._classifiers(label, embedded))
        rows = self._searched(label, found)
        self.added.put(label, rows)
        self.alive[label], self.is_own[label], self.has_rows[label] = True, True, len(rows) > 0
        self.untouched &= label >= self.base

    def remove(self, label: int) -> None:
        """The label is no answer any more; `put` makes it one again."""
        self.alive[label] = False
        if self.own.pop(label, None) is not None:
            self.added.remove(label)
        self.is_own[label] = False
        self.untouched &= label >= self.base

    def compact(self) -> None:
        """Frees the memory of removed labels."""
        self.added.compact()

    @torch.inference_mode()
    def _classifiers(self, label: int, embedded: One) -> list[np.ndarray]:
        out = []
        for network, member in zip(self.predictor.networks, embedded):
            z = torch.from_numpy(member.vectors).to(self.predictor.device)
            if label < self.base:
                w = network.classifier(torch.tensor([label], device=z.device), z)
            else:
                w = network.unseen_classifier(z)
            out.append(w[0].float().cpu().numpy())
        return out

    def _searched(self, label: int, found: One) -> np.ndarray:
        """The rows by which a label is found, as `label_rows` makes them for the index."""
        mu = np.zeros((0, self.search_rows), np.float32)
        if label < self.base:
            mu = self.index.centroids[label : label + 1]
        rows, vectors = joint_rows(list(found)), joint_vectors(list(found))
        source = searched_rows(self.index.vectors, rows, found[0].offsets, vectors, mu)
        return np.asarray(source.rows)

    # Search

    def answerable(self) -> np.ndarray:
        """(count,) bool: labels that can be found."""
        return self.alive[: self.count] & self.has_rows[: self.count]

    def search(
        self, queries: np.ndarray, k: int, excluded: Lists, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, K) labels and similarities: at least the k nearest of the labels `allowed`.

        `excluded`: labels that a query must not get. `allowed` (count,) bool; None for all. -1 and
        -inf fill rows with fewer labels.
        """
        mine = None if self.untouched else self.alive[: self.base] & ~self.is_own[: self.base]
        if allowed is not None:
            of_base = allowed[: self.base]
            mine = of_base if mine is None else mine & of_base
        of_index = excluded.only(excluded.values < self.base)
        found = self.index.neighbours.search(queries, min(k, self.base), of_index, mine)
        if not self.own:
            return found
        wide = min(k + int(excluded.lengths().max(initial=0)), len(self.own))
        may = None if allowed is None else allowed & self.alive[: self.count]
        ids, similarity = self.added.search(queries, wide, may)
        for row in range(len(ids)):
            out = np.isin(ids[row], excluded[row])
            ids[row, out], similarity[row, out] = -1, -np.inf
        return np.hstack([found[0], ids]), np.hstack([found[1], similarity])

    def similarity(self, queries: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """(n, K) float32 similarities of each query and the labels `ids` (K,), all of which have
        rows.
        """
        rows = [self._rows_of(int(label)) for label in ids]
        starts = np.cumsum([0, *(len(r) for r in rows[:-1])]) if rows else np.zeros(0, np.int64)
        if not rows:
            return np.zeros((len(queries), 0), np.float32)
        return np.maximum.reduceat(queries @ np.concatenate(rows).T, starts, axis=1)

    def _rows_of(self, label: int) -> np.ndarray:
        if label in self.own:
            return self._searched(label, self.own[label].found)
        order, starts = self._by_label
        return self.index.neighbours.source.rows[order[starts[label] : starts[label + 1]]]

    @cached_property
    def _by_label(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the index in the order of their labels, and where each label begins."""
        label = self.index.neighbours.source.label
        order = np.argsort(label, kind="stable")
        return order, np.searchsorted(label[order], np.arange(self.base + 1))

    # Scores

    def classifier(self, datapoints: list[Embedded], ids: np.ndarray) -> np.ndarray:
        """(n, K) float32: the mean over members of <w_l, x^{2,l}>; arbitrary where ids are -1."""
        with one_thread() if len(ids) <= FEW else contextlib.nullcontext():
            return self._classifier(datapoints, ids)

    def _classifier(self, datapoints: list[Embedded], ids: np.ndarray) -> np.ndarray:
        device = self.predictor.device
        there = ids >= 0
        asked = there & self.is_own[np.maximum(ids, 0)] if self.sides is not None else there
        out = np.zeros(ids.shape, np.float32)
        if self.sides is not None:
            out = classifier_scores(self.sides, datapoints, np.where(asked, 0, ids), device)
        if not asked.any():
            return out
        with one_thread():
            for row in range(len(ids)):
                columns = np.flatnonzero(asked[row])
                if len(columns):
                    out[row, columns] = self._own_scores(datapoints, row, ids[row, columns])
        return out

    def _own_scores(self, datapoints: list[Embedded], row: int, ids: np.ndarray) -> np.ndarray:
        """(U,) the classifier scores of one datapoint and labels `ids`, without label sides."""
        device, total = self.predictor.device, torch.zeros((), device=self.predictor.device)
        for member, (scores, x) in enumerate(zip(self.scorers, datapoints)):
            w = torch.from_numpy(self._w(member, ids)).to(device)
            bag = x.bags(np.array([row]), device)
            total = total + scores(bag, self.bags(member, ids), w)
        return (total / len(self.scorers)).float().cpu().numpy()

    @cached_property
    def scorers(self) -> list[OwnScores]:
        """What scores one datapoint at a time, by each member."""
        return [OwnScores(n.to(self.predictor.device)) for n in self.predictor.networks]

    @cached_property
    def sides(self) -> LabelSides | None:
        """The sides of all labels of the index; None if they take too much memory."""
        sizes, index = np.diff(self.index.labels[0].offsets), self.index
        members, dim = len(index.labels), index.labels[0].vectors.shape[1]
        numbers = members * self.base * (4 * int(sizes.max(initial=1)) + 2) * dim
        if numbers > SIDES:
            return None
        return label_sides(self.predictor.networks, index.labels, self.predictor.device)

    def _w(self, member: int, ids: np.ndarray) -> np.ndarray:
        """(U, D) the classifiers of labels `ids` (U,)."""
        is_own = self.is_own[ids]
        w = self.index.classifiers[member][np.where(is_own, 0, ids)]
        for place in np.flatnonzero(is_own):
            w[place] = self.own[int(ids[place])].classifiers[member]
        return w

    def bags(self, member: int, ids: np.ndarray) -> Bag:
        """The bags of labels `ids` (U,) by one member, padded to the longest."""
        device = self.predictor.device
        if not self.is_own[ids].any():
            return self.index.labels[member].bags(ids, device)
        own = [self.own.get(int(label)) for label in ids]
        parts = [
            self.index.labels[member].bags(ids[i : i + 1], device)
            if label is None
            else label.embedded[member].bags(np.array([0]), device)
            for i, label in enumerate(own)
        ]
        width = max(part.rows.shape[1] for part in parts)
        rows = torch.zeros(len(ids), width, parts[0].rows.shape[2], device=device)
        modality = torch.full((len(ids), width), -1, dtype=torch.int8, device=device)
        for i, part in enumerate(parts):
            size = part.rows.shape[1]
            rows[i, :size], modality[i, :size] = part.rows[0], part.modality[0]
        return Bag(rows, modality)

    # Other terms of the mix

    def log_frequency(self) -> np.ndarray:
        """(count,) float32: log(1 + train datapoints); 0 for added labels."""
        if len(self._log_frequency) != self.count:
            added = np.zeros(self.count - self.base, np.float32)
            self._log_frequency = np.concatenate([self.index.log_frequency, added])
        return self._log_frequency

    def trained(self, ids: np.ndarray) -> np.ndarray:
        """`ids` with -1 in place of added labels, which training knows nothing of."""
        return np.where(ids < self.base, ids, -1)

"""What cross-attention does in a fine-tuned network: its weights, and scores before and after it (MUFIN Fig. 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mufin import runtime
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.attention import AttentionBlock
from mufin.nn.embedding import Embedded, embed_members, joint_vectors
from mufin.nn.mufin import Bag, Mufin
from mufin.ragged import Lists
from mufin.ranking.label_index import Index
from mufin.ranking.scoring import classifier_scores, label_sides


@dataclass(frozen=True, slots=True)
class Network:
    """The fine-tuned members with the index they serve; what is shown of single labels and datapoints is of the first."""

    members: list[Mufin]
    store: DescriptorStore
    index: Index
    shortlist: int

    @property
    def first(self) -> Mufin:
        return self.members[0]

    @property
    def labels(self) -> Embedded:
        return self.index.labels[0]

    @property
    def classifiers(self) -> np.ndarray:
        """w of the first member, (L, D)."""
        return self.index.classifiers[0]

    def embed(self, products: np.ndarray) -> list[Embedded]:
        """`products` by every member: retrieval asks all."""
        return embed_members(
            self.members, self.store, products, runtime.device(), runtime.precision()
        )

    def retrieved(self, datapoints: list[Embedded], excluded: Lists) -> np.ndarray:
        """(n, K) the shortlist of each datapoint, its filter pairs aside; -1 where there are fewer labels."""
        width = min(self.shortlist, len(self.index.products))
        return self.index.neighbours.search(joint_vectors(datapoints), width, excluded)[0]


def has_cross_attention(member: Mufin) -> bool:
    """Whether A_C is there: the variants ConCat and no A_C have something else, or nothing, in its place."""
    return isinstance(member.cross_attention, AttentionBlock)


@torch.inference_mode()
def cross_weights(
    member: Mufin, datapoints: Embedded, i: int, labels: Embedded, label: int
) -> np.ndarray:
    """(m_i, m_l) A_C's attention of datapoint i's descriptors on the label's, rows sum to 1; the mean over heads."""
    member.cpu().eval()
    block, x, z = member.cross_attention, _bag(datapoints, i), _bag(labels, label)
    keys, _ = block.answers(z.rows)
    return block.weights(block.asks(x.rows), keys, z.mask)[0].mean(0).numpy()


@torch.inference_mode()
def adapted(
    member: Mufin, datapoints: Embedded, i: int, labels: Embedded, label: int
) -> np.ndarray:
    """(D,) x^{2,l} of datapoint i for one label."""
    return member.cpu().eval().adapted(_bag(datapoints, i), _bag(labels, label))[0].numpy()


def _bag(embedded: Embedded, i: int) -> Bag:
    return embedded.bags(np.array([i]), torch.device("cpu"))


def scores_before_and_after(
    network: Network, datapoints: Embedded, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """<x^1, w_l> and <x^{2,l}, w_l> of each datapoint's candidates (n, K), -1 = none -> two (n, K) float32, of the first
    member."""
    ids, device = np.maximum(candidates, 0), runtime.device()
    before = np.zeros(ids.shape, np.float32)
    for row, x in enumerate(datapoints.vectors):
        before[row] = network.classifiers[ids[row]] @ x
    sides = label_sides([network.first], [network.labels], device)
    return before, classifier_scores(sides, [datapoints], candidates, device)

"""Prediction with MUFIN: embed, retrieve, score (Sec. 3.1). The mix and the final order are those of `mix` and `order`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.embedding import Embedded, embed_members, joint_vectors
from mufin.nn.mufin import Mufin
from mufin.ragged import Lists
from mufin.ranking.label_index import LabelIndex
from mufin.ranking.mix import Candidates
from mufin.ranking.scoring import LabelSides, classifier_scores, label_sides


@dataclass(frozen=True)
class Predictor:
    """The fine-tuned networks with the index of their labels."""

    networks: list[Mufin]
    store: DescriptorStore  # of the catalog's products
    index: LabelIndex
    device: torch.device
    precision: torch.dtype

    def embed(
        self,
        products: np.ndarray,
        modalities: set[int] | None = None,
        store: DescriptorStore | None = None,
    ) -> list[Embedded]:
        """`products` by each network; `modalities` (codes) leaves other descriptors out."""
        return embed_members(
            self.networks, store or self.store, products, self.device, self.precision, modalities
        )

    def retrieve(
        self, datapoints: list[Embedded], k: int, excluded: Lists | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels (n, K) and similarities of the K = min(k, L) nearest labels, `excluded` left out; -1 where fewer."""
        return self.index.neighbours.search(
            joint_vectors(datapoints), min(k, len(self.index)), excluded
        )

    def score(
        self, datapoints: list[Embedded], ids: np.ndarray, alpha_one: bool = False
    ) -> np.ndarray:
        """(n, K) float32 classifier scores of labels `ids`; `alpha_one`: with w = z^1."""
        sides = self._alpha_one_sides if alpha_one else self._sides
        return classifier_scores(sides, datapoints, ids, self.device)

    def candidates(
        self,
        datapoints: list[Embedded],
        k: int,
        excluded: Lists | None,
        titles: list[str] | None = None,
    ) -> Candidates:
        """The k nearest labels of each datapoint with their scores; the ridge's too, where there is one, for `titles`."""
        ids, similarity = self.retrieve(datapoints, k, excluded)
        ridge = None
        if self.index.ridge is not None and titles is not None:
            ridge = np.take_along_axis(self.index.ridge.scores(titles), np.maximum(ids, 0), 1)
        return Candidates(ids, self.score(datapoints, ids), similarity, ridge)

    @cached_property
    def _sides(self) -> LabelSides:
        return label_sides(self.networks, self.index.labels, self.device)

    @cached_property
    def _alpha_one_sides(self) -> LabelSides:
        return label_sides(self.networks, self.index.labels, self.device, alpha_one=True)

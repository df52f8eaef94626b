"""Prediction: embed datapoints, retrieve labels, score them (MUFIN Sec. 3.1, Prediction).

`mufin.ranking.mix` then combines the scores, and `mufin.ranking.order` sorts the labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from mufin import process_group
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.embedding import Embedded, embed_members, search_vectors
from mufin.nn.mufin import Mufin
from mufin.ragged import Lists
from mufin.ranking.label_index import LabelIndex
from mufin.ranking.mix import Candidates
from mufin.ranking.scoring import LabelSides, classifier_scores, label_sides
from mufin.ranking.train_pairs import TrainPairs
from mufin.retrieval.neighbours import shared_search


@dataclass(frozen=True)
class Predictor:
    """The fine-tuned networks with the index of their labels.

    In a stage of several processes all of them must call its methods: each computes the results of
    its share of the datapoints, and all get all of them, the same bytes as in one process.

    Candidates and similarities come from them too, or from the networks of Module I
    (`retrieve.model`), as in the paper: its search structure is built after Module I.
    """

    networks: list[Mufin]
    store: DescriptorStore  # of the products in the catalog
    index: LabelIndex
    device: torch.device
    precision: torch.dtype
    pairs: TrainPairs | None = None  # of the products in the catalog
    retrievers: list[Mufin] | None = None  # of Module I; None: the fine-tuned networks search

    def embed(
        self,
        products: np.ndarray,
        modalities: set[int] | None = None,
        store: DescriptorStore | None = None,
    ) -> list[Embedded]:
        """`products` (row numbers of the store) as each network embeds them.

        With `modalities` (codes) only descriptors of these are used. `store` replaces that of the
        catalog, for other products.
        """
        embedded = self._embedded(self.networks, products, modalities, store)
        if self.retrievers is None:
            return embedded
        found = self._embedded(self.retrievers, products, modalities, store)
        return [replace(e, search=f.vectors) for e, f in zip(embedded, found)]

    def embed_for_search(
        self, products: np.ndarray, store: DescriptorStore | None = None
    ) -> list[Embedded]:
        """`products` as each of the networks that search embeds them."""
        return self._embedded(self.retrievers or self.networks, products, None, store)

    def _embedded(
        self,
        networks: list[Mufin],
        products: np.ndarray,
        modalities: set[int] | None,
        store: DescriptorStore | None,
    ) -> list[Embedded]:
        return embed_members(
            networks, store or self.store, products, self.device, self.precision, modalities
        )

    def retrieve(
        self, datapoints: list[Embedded], k: int, excluded: Lists | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels and similarities (n, K) of the K = min(k, L) nearest labels, best first.

        Labels in `excluded` and labels without a descriptor are left out; -1 and -inf fill rows
        with fewer labels.
        """
        vectors, most = search_vectors(datapoints), min(k, len(self.index))
        return shared_search(self.index.neighbours, vectors, most, self.device, excluded)

    def score(
        self, datapoints: list[Embedded], ids: np.ndarray, alpha_one: bool = False
    ) -> np.ndarray:
        """(n, K) float32 classifier scores of labels `ids` (n, K); with w = z^1 if `alpha_one`."""
        return classifier_scores(self._sides(alpha_one), datapoints, ids, self.device)

    def candidates(
        self,
        datapoints: list[Embedded],
        k: int,
        excluded: Lists | None,
        titles: list[str] | None = None,
        products: np.ndarray | None = None,
    ) -> Candidates:
        """The k nearest labels of each datapoint, with all their scores.

        Scores of the title ridge need `titles`, one per datapoint, and an index with a ridge. The
        strengths of pairs in train need `products`, the rows of the datapoints in the catalog; with
        them, a datapoint of train does not vote for its own labels.
        """
        ids, similarity = self.retrieve(datapoints, k, excluded)
        ridge = None if titles is None else self._ridge(titles, ids)
        votes, pairs = self._votes(search_vectors(datapoints), ids, products), None
        if self.pairs is not None and products is not None and self.pairs.known(products).any():
            pairs = self.pairs.of(products, ids)
        return Candidates(ids, self.score(datapoints, ids), similarity, ridge, votes, pairs)

    def _ridge(self, titles: list[str], ids: np.ndarray) -> np.ndarray | None:
        """(n, K) scores of the title ridge, if there is one."""
        if (ridge := self.index.ridge) is None:
            return None
        [scores] = process_group.in_shares(
            len(ids), lambda rows: (ridge.of(titles[rows], ids[rows]),), self.device
        )
        return scores

    def _votes(
        self, vectors: np.ndarray, ids: np.ndarray, products: np.ndarray | None
    ) -> np.ndarray | None:
        """(n, K) votes of the nearest train datapoints, if the index has them."""
        if (votes := self.index.votes) is None:
            return None

        def of_share(rows: slice) -> tuple[np.ndarray]:
            asked = None if products is None else products[rows]
            return (votes.scores(vectors[rows], ids[rows], asked),)

        [scores] = process_group.in_shares(len(ids), of_share, self.device, votes.at_once())
        return scores

    def release(self) -> None:
        """Frees what searches and scores hold of all labels; it is made again when it is needed."""
        self._held.clear()
        self.index.neighbours.release()
        if self.index.votes is not None:
            self.index.votes.search.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # searches look at what is free on the GPU

    def _sides(self, alpha_one: bool) -> LabelSides:
        """The label sides, of which one kind is held at a time."""
        if alpha_one not in self._held:
            self._held.clear()
            sides = label_sides(self.networks, self.index.labels, self.device, alpha_one)
            self._held[alpha_one] = sides
        return self._held[alpha_one]

    @cached_property
    def _held(self) -> dict[bool, LabelSides]:
        return {}

"""A recommender beside the store of its changes: what the server runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from mufin.nn.embedding import Embedded
from mufin.serving.answers import Answer, Product
from mufin.serving.catalog import Embedding
from mufin.serving.embedded import One
from mufin.serving.live_product import Delete, LiveProduct, Upsert
from mufin.serving.model import load_model
from mufin.serving.query import Query, QueryError
from mufin.serving.recommender import Recommender
from mufin.serving.store import ProductStore

TOGETHER = 256  # products of the store that are applied at once at the start
FIELDS = ("rows", "modality", "offsets", "vectors")


class Service:
    """A recommender beside the store of its changes, as the server uses them.

    The store says what a live product is; here it becomes an answer. What the networks make of it
    is kept in the store too, so that a start does not encode it again. Not for several threads at
    once.
    """

    def __init__(self, recommender: Recommender, store: ProductStore | None = None):
        self.recommender, self.store = recommender, store

    @classmethod
    def load(cls, folder: str | Path, store: ProductStore | None = None) -> Service:
        """The model in a folder, ready to answer, without the changes in the store; see `restore`.

        Raises MufinError if the model is incomplete, damaged or of several runs.
        """
        stored = None if store is None else store.picture
        recommender = Recommender(load_model(Path(folder), fast=True), stored)
        recommender.warm()
        return cls(recommender, store)

    def answers(self, queries: Sequence[Query]) -> list[list[Answer] | QueryError]:
        """The answers to each question, or what is wrong with it."""
        return self.recommender.answers(queries)

    def product(self, uid: str) -> Product | None:
        """What is known of a product, None for an unknown one."""
        return self.recommender.product(uid)

    def picture(self, key: str) -> bytes | None:
        """The bytes of a picture, None for an unknown key."""
        return self.recommender.picture(key)

    def find(self, text: str, limit: int) -> list[Product]:
        """Products whose title or uid contains the text."""
        return self.recommender.find(text, limit)

    def settle(self) -> bool:
        """Moves some added rows into the graph of their search, or frees the memory of removed
        ones; whether there is more to do.
        """
        added = self.recommender.catalog.labels.added
        return added.compact() or added.settle() > 0

    def live_products(self) -> int:
        """How many products were added or changed since training."""
        return len(self.recommender.catalog.live)

    def info(self) -> dict:
        """What the model is, for a person or a page."""
        return self.recommender.info()

    def refusals(self, products: Sequence[LiveProduct]) -> list[QueryError | None]:
        """For each product why `upsert` would refuse it, None if it would not."""
        return [self.recommender.refusal(product) for product in products]

    def upsert(self, products: Sequence[LiveProduct]) -> None:
        """Adds or changes products, all or none; raises QueryError for a broken picture."""
        catalog = self.recommender.catalog
        prepared = catalog.prepared(products)
        self._keep(prepared)
        catalog.apply(prepared)

    def delete(self, uids: Sequence[str]) -> None:
        """Removes products; unknown ones are passed over."""
        self.recommender.delete(uids)

    def restore(self) -> None:
        """Applies all changes in the store to a recommender that was just loaded.

        The store then forgets what other models made of its products.
        """
        if self.store is None:
            return
        catalog, model = self.recommender.catalog, self.recommender.model.id
        self.recommender.delete(sorted(self.store.deleted()))
        for products in _batches(self.store.products()):
            stored = self.store.vectors(model, [product.uid for product in products])
            known = {uid: _unpacked(content) for uid, content in stored.items()}
            prepared = catalog.prepared(products, known)
            self._keep([pair for pair in prepared if pair[0].uid not in known])
            catalog.apply(prepared)
        self.store.forget_models([model])  # else each night's model would leave its vectors

    def _keep(self, prepared: Sequence[tuple[LiveProduct, Embedding]]) -> None:
        """Keeps what the networks made of products that the store has."""
        if self.store is None:
            return
        packed = {p.uid: _packed(embedding) for p, embedding in prepared if embedding is not None}
        if packed:
            self.store.keep_vectors(self.recommender.model.id, packed)


class StoreKeeper:
    """Keeps changes in a store, and applies them to a service that was just loaded."""

    def __init__(self, store: ProductStore):
        self.store = store

    def commit(self, upserts: Sequence[LiveProduct], deletes: Sequence[str]) -> None:
        """Keeps all of these changes, or raises; when it returns they survive a kill."""
        self.store.apply([*map(Upsert, upserts), *map(Delete, deletes)])

    def restore(self, service: Service) -> None:
        """Applies all kept changes."""
        service.restore()


def _batches(products: Iterable[LiveProduct]) -> Iterable[list[LiveProduct]]:
    iterator = iter(products)
    while batch := list(islice(iterator, TOGETHER)):
        yield batch


def _packed(embedding: tuple[One, One]) -> bytes:
    """What the networks made of a product, as safetensors."""
    arrays = {
        f"{part}/{member}/{name}": np.ascontiguousarray(getattr(embedded, name))
        for part, one in enumerate(embedding)
        for member, embedded in enumerate(one)
        for name in FIELDS
    }
    return save(arrays)


def _unpacked(content: bytes) -> tuple[One, One]:
    arrays = load(content)
    members = len({name.split("/")[1] for name in arrays})
    first, second = (
        tuple(
            Embedded(*(arrays[f"{part}/{member}/{name}"] for name in FIELDS))
            for member in range(members)
        )
        for part in (0, 1)
    )
    return first, second

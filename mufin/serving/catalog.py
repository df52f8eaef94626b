"""The catalog that is served: the products of the model, and what was changed since."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mufin.corpus.image_store import key_of
from mufin.serving.answers import Product
from mufin.serving.attributes import Attributes
from mufin.serving.datapoints import Asked, Datapoints
from mufin.serving.embedded import One
from mufin.serving.kept_texts import kept_texts
from mufin.serving.labels import Labels
from mufin.serving.live_product import LiveProduct
from mufin.serving.model import Model
from mufin.serving.query import NewProduct, QueryError
from mufin.serving.variants import Variants

Embedding = tuple[One, One] | None  # by the fine-tuned networks, by those that search; None: as was


@dataclass(frozen=True, slots=True)
class Live:
    """A product that was added or changed; its pictures are kept by key."""

    title: str
    category: tuple[str, ...]
    attributes: dict
    pictures: tuple[str, ...]
    texts: tuple[str, ...]


class Catalog:
    """Products by uid and label. Not for several threads at once."""

    def __init__(self, model: Model, stored: Callable[[str], bytes | None] | None = None):
        """`stored` returns a picture of a live product by its key; None: they are kept here."""
        self.model, self.stored = model, stored
        self.labels, self.datapoints = Labels(model.predictor), Datapoints(model)
        rows = pa.array(model.predictor.index.products)
        self.attributes = Attributes(
            model.attributes.take(rows), model.products["category"].take(rows)
        )
        self.live: dict[str, Live] = {}
        self.label_of_added: dict[str, int] = {}
        self.added: list[str] = []  # the uid of label L + i
        self.removed: set[int] = set()  # rows of the model's products
        self.contents: dict[str, bytes] = {}  # pictures of live products, by key
        self.uses: Counter[str] = Counter()  # of these

    def __len__(self) -> int:
        model = self.model
        new = sum(uid not in model.row_of for uid in self.live)
        return len(model.uids) - len(self.removed) + new

    # Reading

    def label(self, uid: str) -> int | None:
        """The label that is the product, whether or not it can be an answer; None if none is."""
        if uid in self.label_of_added:
            return self.label_of_added[uid]
        row = self.model.row_of.get(uid)
        label = -1 if row is None else int(self.model.label_of_row[row])
        return None if label < 0 else label

    def uid(self, label: int) -> str:
        """The uid of a label."""
        if label >= self.labels.base:
            return self.added[label - self.labels.base]
        return self.model.uids[self.model.predictor.index.products[label]]

    def title(self, uid: str) -> str:
        """The title of a product."""
        live = self.live.get(uid)
        return self.model.title(self.model.row_of[uid]) if live is None else live.title

    def texts(self, uid: str) -> tuple[str, ...]:
        """The texts beside the title of a product, as the networks read them."""
        live = self.live.get(uid)
        if live is None:
            return self.model.texts_of(self.model.row_of[uid])
        return kept_texts(live.title, live.texts, self.model.most_texts)

    def knows(self, uid: str) -> bool:
        """Whether the catalog has the product."""
        row = self.model.row_of.get(uid)
        return uid in self.live or (row is not None and row not in self.removed)

    def product(self, uid: str) -> Product | None:
        """What is known of a product, None for an unknown one."""
        if not self.knows(uid):
            return None
        label = self.label(uid)
        answerable = label is not None and bool(self.labels.answerable()[label])
        live = self.live.get(uid)
        if live is not None:
            content = (live.title, live.category, live.attributes, live.pictures)
            return Product(uid, *content, answerable, True, live.texts)
        model, row = self.model, self.model.row_of[uid]
        return Product(
            uid,
            model.title(row),
            model.category(row),
            model.attributes_of(row),
            model.picture_keys(row),
            answerable,
            False,
            model.texts_of(row),
        )

    def picture(self, key: str) -> bytes | None:
        """The bytes of a picture, None for an unknown key."""
        content = self.contents.get(key) if self.stored is None else self.stored(key)
        return self.model.pictures.get(key) if content is None else content

    def find(self, text: str, limit: int) -> list[Product]:
        """Products whose title or uid contains the text, case aside: live ones, then the others."""
        wanted, found = text.casefold(), []
        for uid, live in self.live.items():
            if wanted in live.title.casefold() or wanted in uid.casefold():
                found.append(uid)
        for row in self._rows_with(wanted, limit + len(self.live) + len(self.removed)):
            uid = self.model.uids[row]
            if row not in self.removed and uid not in self.live:
                found.append(uid)
        products = [self.product(uid) for uid in found[:limit]]
        return [product for product in products if product is not None]

    def _rows_with(self, text: str, most: int) -> list[int]:
        hit = pc.or_(pc.match_substring(self._titles, text), pc.match_substring(self._uids, text))
        return np.flatnonzero(hit.to_numpy(zero_copy_only=False))[:most].tolist()

    @cached_property
    def _titles(self) -> pa.Array:
        return pc.utf8_lower(_flat(self.model.products["title"]))

    @cached_property
    def _uids(self) -> pa.Array:
        return pc.utf8_lower(_flat(self.model.products["uid"]))

    def asked(self, uid: str, field: str) -> Asked:
        """The product to ask about; raises QueryError for an unknown one."""
        if not self.knows(uid):
            near = difflib.get_close_matches(uid, self.model.uids[:NEAR], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise QueryError(field, f"{uid} is not a product of the catalog{hint}")
        live, label = self.live.get(uid), self.label(uid)
        own = None if label is None else self.labels.own.get(label)
        if live is None or self._as_trained(uid, live):
            row = self.model.row_of[uid]
            return Asked(self.title(uid), uid, row, category=self.model.category(row))
        embedded = None
        if own is not None:
            embedded = _searching(own.embedded, own.found)
        contents = tuple(c for key in live.pictures if (c := self.picture(key)) is not None)
        new = NewProduct(live.title, contents, live.category, live.texts)
        return Asked(live.title, uid, -1, new, embedded, live.category)

    def _as_trained(self, uid: str, live: Live) -> bool:
        """Whether the model has the product with this title, these texts and these pictures."""
        model, row = self.model, self.model.row_of.get(uid)
        if row is None:
            return False
        trained = (model.title(row), model.texts_of(row), model.picture_keys(row))
        return (live.title, live.texts, live.pictures) == trained

    @cached_property
    def variants(self) -> Variants:
        """The groups of labels that are variants of one another, made when first asked for."""
        labels = self.labels
        titles = [self.title(self.uid(label)) for label in range(labels.base)]
        variants = Variants(titles, self.model.first_pictures())
        for label in range(labels.base, labels.count):
            self._set_variant(variants, label)
        for label in labels.own:
            if label < labels.base:
                self._set_variant(variants, label)
        return variants

    def _set_variant(self, variants: Variants, label: int) -> None:
        live = self.live.get(self.uid(label))
        if live is None:  # removed
            variants.set(label, "", "")
        else:
            variants.set(label, live.title, live.pictures[0] if live.pictures else "")

    # Changes

    def check(self, product: LiveProduct) -> None:
        """Raises QueryError if the product cannot be in the catalog; what is read is remembered."""
        self.attributes.check(product.attributes)
        if not self._same(product):
            self.datapoints.new_products.check(_new(product))

    def prepared(
        self, products: Sequence[LiveProduct], known: Mapping[str, Embedding] | None = None
    ) -> list[tuple[LiveProduct, Embedding]]:
        """The products with what the networks make of them; changes nothing.

        A product of which only category and attributes change is not embedded again. Of several
        with one uid the last counts. `known`: what the networks made of some, by uid. Raises
        QueryError for a picture that cannot be read.
        """
        last = {product.uid: product for product in products}
        for product in last.values():
            self.attributes.check(product.attributes)
        out: dict[str, Embedding] = dict.fromkeys(last) | {
            uid: embedding for uid, embedding in (known or {}).items() if uid in last
        }
        fresh = [p for uid, p in last.items() if out[uid] is None and not self._same(p)]
        if fresh:
            new = [_new(product) for product in fresh]
            embedded = found = self.datapoints.embed_new(new)
            if self.model.predictor.retrievers is not None:
                found = self.datapoints.embed_for_search(new)
            out |= {p.uid: pair for p, pair in zip(fresh, zip(embedded, found))}
        return [(product, out[uid]) for uid, product in last.items()]

    def _same(self, product: LiveProduct) -> bool:
        """Whether it is an answer already, with this title, these texts and these pictures."""
        label, keys = self.label(product.uid), tuple(map(key_of, product.pictures))
        if not self.knows(product.uid) or label is None or not self.labels.answerable()[label]:
            return False
        known = self.product(product.uid)
        if known is None:
            return False
        now = (known.title, known.texts, known.pictures)
        return now == (product.title, product.texts, keys)

    def apply(self, prepared: Sequence[tuple[LiveProduct, Embedding]]) -> None:
        """Adds or changes the products that `prepared` returned."""
        for product, embedding in prepared:
            self._keep(product)
            label = self.label(product.uid)
            if label is None:
                label = self.labels.new_label()
                self.label_of_added[product.uid] = label
                self.added.append(product.uid)
            self.removed.discard(self.model.row_of.get(product.uid, -1))
            if embedding is not None:
                if embedding[0][0].sizes[0]:
                    self.labels.put(label, *embedding)
                else:
                    self.labels.remove(label)
                if "variants" in self.__dict__:
                    self._set_variant(self.variants, label)
            self.attributes.set(label, product.attributes, product.category)

    def _keep(self, product: LiveProduct) -> None:
        keys = tuple(map(key_of, product.pictures))
        if self.stored is None:
            self.contents |= zip(keys, product.pictures)
        self.uses.update(keys)
        self._forget(product.uid)
        self.live[product.uid] = Live(
            product.title, product.category, dict(product.attributes), keys, product.texts
        )

    def _forget(self, uid: str) -> None:
        live = self.live.pop(uid, None)
        for key in live.pictures if live is not None else ():
            self.uses[key] -= 1
            if not self.uses[key]:
                del self.uses[key]
                self.contents.pop(key, None)

    def remove(self, uid: str) -> None:
        """Removes a product; an unknown one is passed over."""
        self._forget(uid)
        if (label := self.label(uid)) is not None:
            self.labels.remove(label)
        if (row := self.model.row_of.get(uid)) is not None:
            self.removed.add(row)


NEAR = 20_000  # uids among which a near one is looked for: all take seconds where there are many


def _new(product: LiveProduct) -> NewProduct:
    return NewProduct(product.title, product.pictures, product.category, product.texts)


def _searching(embedded: One, found: One) -> One:
    """The product with the vectors of the networks that search."""
    return tuple(replace(e, search=f.vectors) for e, f in zip(embedded, found))


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)

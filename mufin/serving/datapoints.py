"""Products that are asked about, embedded; what was embedded before is remembered."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.image_store import key_of
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.nn.embedding import Embedded
from mufin.serving.embedded import One, joined, one_of, size_of
from mufin.serving.model import Model
from mufin.serving.new_products import NewProducts
from mufin.serving.query import NewProduct
from mufin.serving.remembered import Remembered
from mufin.serving.threads import one_thread

FEW = 4  # products at once that one thread embeds, if that is little work
KEPT = 2**27  # bytes of embedded products that are kept
CODES = {"text": TEXT, "image": IMAGE, "lexical": LEXICAL}
Modalities = tuple[str, ...] | None  # None: all that the model uses


@dataclass(frozen=True, slots=True)
class Asked:
    """One product that is asked about, or avoided."""

    title: str
    uid: str | None  # None for a product that is not in the catalog
    row: int  # in data/curated/products.parquet, -1 for a product that is new or has changed
    new: NewProduct | None = None  # where `row` is -1 and `embedded` is None
    embedded: One | None = None  # of a label that was added or changed
    category: tuple[str, ...] = ()


class Datapoints:
    """Embeds products of the catalog and new ones, by the fine-tuned networks of a model."""

    def __init__(self, model: Model):
        self.model, self.predictor = model, model.predictor
        self.kept: Remembered[One] = Remembered(KEPT, size_of)

    @cached_property
    def new_products(self) -> NewProducts:
        """The encoders of new products, loaded at the first question about one."""
        model = self.model
        return NewProducts(
            model.precomputed,
            model.params.encoder,
            self.predictor.device,
            self.predictor.precision,
            model.fast,
            model.most_texts,
        )

    @cached_property
    def light(self) -> bool:
        """Whether the networks read descriptors, so that only the attention is left to compute."""
        networks = [*self.predictor.networks, *(self.predictor.retrievers or [])]
        encoders = [e for n in networks for name, e in n.encoders.items() if name != "lexical"]
        return all(getattr(encoder, "kind", "") == "descriptors" for encoder in encoders)

    def embedded(self, asked: Sequence[tuple[Asked, Modalities]]) -> list[Embedded]:
        """The products, at least one, with the descriptors of these modalities only."""

        def make(positions: list[int]) -> list[One]:
            return self._make([asked[i] for i in positions])

        return joined(self.kept.all([_key(*one) for one in asked], make))

    def embed_new(self, products: Sequence[NewProduct]) -> list[One]:
        """These products with all of their descriptors; not remembered."""
        store = self.new_products.store(products)
        every = np.arange(len(products))
        embedded = self.predictor.embed(every, store=store)
        return [one_of(embedded, row) for row in range(len(products))]

    def embed_for_search(self, products: Sequence[NewProduct]) -> list[One]:
        """As `embed_new`, but by the networks that search."""
        store = self.new_products.store(products)
        every = np.arange(len(products))
        embedded = self.predictor.embed_for_search(every, store=store)
        return [one_of(embedded, row) for row in range(len(products))]

    def _make(self, asked: list[tuple[Asked, Modalities]]) -> list[One]:
        """Each product embedded; those that go through the networks in the same way, together."""
        out: dict[int, One] = {}
        groups: dict[tuple[bool, Modalities], list[int]] = {}
        for i, (product, modalities) in enumerate(asked):
            if product.embedded is not None and modalities is None:
                out[i] = product.embedded
            elif (label := self._label(product)) >= 0 and modalities is None:
                out[i] = self._of_label(label)
            else:
                groups.setdefault((product.row >= 0, modalities), []).append(i)
        for (known, modalities), numbers in groups.items():
            products = [asked[i][0] for i in numbers]
            store: DescriptorStore | None = None
            rows = np.array([product.row for product in products])
            if not known:
                new = [p.new or NewProduct() for p in products]
                store, rows = self.new_products.store(new), np.arange(len(products))
            codes = None if modalities is None else {CODES[name] for name in modalities}
            with one_thread() if len(rows) <= FEW and self.light else contextlib.nullcontext():
                embedded = self.predictor.embed(rows, codes, store)
            out |= {i: one_of(embedded, place) for place, i in enumerate(numbers)}
        return [out[i] for i in range(len(asked))]

    def _label(self, product: Asked) -> int:
        """The label whose bag in the index is that of the product; -1 for none."""
        return -1 if product.row < 0 else int(self.model.label_of_row[product.row])

    def _of_label(self, label: int) -> One:
        """A label of the index: its bag is what the same networks make of it as a datapoint."""
        index = self.predictor.index
        found = index.found or index.labels
        return tuple(
            Embedded(e.rows, e.modality, e.offsets, e.vectors, f.vectors)
            for e, f in zip(one_of(index.labels, label), one_of(found, label))
        )


def _key(product: Asked, modalities: Modalities) -> tuple:
    if product.row >= 0:
        return ("row", product.row, modalities)
    if product.embedded is not None and modalities is None:
        return ("own", id(product.embedded))
    new = product.new or NewProduct()
    return ("new", new.title, new.texts, tuple(key_of(p) for p in new.pictures), modalities)

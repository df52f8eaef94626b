"""A recommender and a store in memory: deterministic answers, which block or fail on demand."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from mufin.errors import ArtifactError
from mufin.serving.answers import Answer, Descriptor, Product, Reason
from mufin.serving.live_product import LiveProduct
from mufin.serving.query import Query, QueryError
from tests.support.servers import jpeg

SCRIPT = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


class FakeService:
    """Products 0 to `count` - 1 named p0, p1 ...; an answer is a product asked about, plus 1."""

    def __init__(self, name: str = "first", count: int = 50):
        self.name = name
        self.pictures = {"a/b": jpeg(1), "evil": SCRIPT}
        self.products = {f"p{n}": self._product(n) for n in range(count)}
        self.order = list(self.products)
        self.threads: set[int] = set()  # that called it
        self.batches: list[int] = []  # questions of each call
        self.deleted: list[str] = []
        self.unsettled = 0  # calls of `settle` until there is nothing to do
        self.slow = 0.0  # seconds per call of `answers`
        self.blocked = threading.Event()
        self.blocked.set()  # clear it to hold the device thread in `answers`
        self.entered = threading.Event()  # set while `answers` runs

    def _product(self, n: int) -> Product:
        pictures = ("a/b",) if n % 2 == 0 else ()
        category = ("Kitchen", "Mugs")
        return Product(f"p{n}", f"Mug {n}", category, {"price": float(n)}, pictures, True, False)

    def _called(self) -> None:
        self.threads.add(threading.get_ident())
        assert len(self.threads) == 1, "more than one thread calls the recommender"

    def answers(self, queries: Sequence[Query]) -> list[list[Answer] | QueryError]:
        self._called()
        self.entered.set()
        assert self.blocked.wait(30)
        self.batches.append(len(queries))
        time.sleep(self.slow)
        if any(q.new and q.new.title == "poison" for q in queries):
            raise RuntimeError("CUDA error: an illegal memory access")
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> list[Answer] | QueryError:
        for uid in query.uids:
            if uid not in self.products:
                return QueryError("uids", f"{uid} is not a product of the catalog; correct it")
        for number, content in enumerate(query.new.pictures if query.new else ()):
            if len(content) < 100:
                return QueryError(f"images.{number}", f"image {number} is not a picture")
        names = [uid for uid in self.order if uid not in query.uids]
        if query.new and query.new.pictures:
            names.reverse()
        names = names[: query.k]
        asked = Descriptor(None, "title", 0)
        if query.new and query.new.texts:
            asked = Descriptor(None, "text", 0, query.new.texts[0])
        why = (Reason(asked, Descriptor("p1", "picture", 0), 0.5, "cosine"),)
        return [
            Answer(
                uid,
                f"{self.name} {self.products[uid].title}",
                1.0 - n / 100,
                {"classifier": 1.0 - n / 100},
                why if query.reasons else (),
                fallback=not query.uids,
            )
            for n, uid in enumerate(names)
        ]

    def product(self, uid: str) -> Product | None:
        self._called()
        return self.products.get(uid)

    def picture(self, key: str) -> bytes | None:
        self._called()
        return self.pictures.get(key)

    def find(self, text: str, limit: int) -> list[Product]:
        self._called()
        return [p for p in self.products.values() if text in p.title or text in p.uid][:limit]

    def settle(self) -> bool:
        self.unsettled = max(self.unsettled - 1, 0)
        return self.unsettled > 0

    def live_products(self) -> int:
        return self.info()["live"]

    def info(self) -> dict[str, Any]:
        live = sum(product.live for product in self.products.values())
        return {"id": self.name, "products": len(self.products), "live": live}

    def refusals(self, products: Sequence[LiveProduct]) -> list[QueryError | None]:
        self._called()
        bad = QueryError("title", "the title is refused; write another one")
        return [bad if product.title == "refused" else None for product in products]

    def upsert(self, products: Sequence[LiveProduct]) -> None:
        for given in products:
            if given.title == "not applied":
                raise RuntimeError("out of memory")
            keys = [hashlib.sha256(content).hexdigest() for content in given.pictures]
            self.pictures |= dict(zip(keys, given.pictures))
            self.products[given.uid] = Product(
                given.uid,
                given.title,
                given.category,
                given.attributes,
                tuple(keys),
                True,
                True,
                given.texts,
            )
        self.order = [*dict.fromkeys([*(p.uid for p in products), *self.order])]

    def delete(self, uids: Sequence[str]) -> None:
        for uid in uids:
            self.deleted.append(uid)
            self.products.pop(uid, None)
        self.order = [uid for uid in self.order if uid in self.products]


class FakeKeeper:
    """Keeps changes in memory; a list of its transactions."""

    def __init__(self) -> None:
        self.commits: list[tuple[list[LiveProduct], list[str]]] = []
        self.kept: dict[str, LiveProduct | None] = {}
        self.fails: Exception | None = None
        self.free = threading.Event()
        self.free.set()  # clear it to hold a commit
        self.restoring = threading.Event()

    def commit(self, upserts: Sequence[LiveProduct], deletes: Sequence[str]) -> None:
        assert self.free.wait(30)
        if self.fails or any(product.title == "not kept" for product in upserts):
            raise self.fails or OSError(28, "No space left on device")
        self.commits.append((list(upserts), list(deletes)))
        self.kept |= {product.uid: product for product in upserts}
        self.kept |= dict.fromkeys(deletes)

    def restore(self, service: Any) -> None:
        service.delete([uid for uid, product in self.kept.items() if product is None])
        service.upsert([product for product in list(self.kept.values()) if product])
        self.restoring.set()


class FakeModels:
    """`load` for folders of these names; others are broken."""

    def __init__(self, *services: FakeService):
        self.services = {service.name: service for service in services}
        self.free = threading.Event()
        self.free.set()  # clear it to hold a load
        self.loading = threading.Event()

    def load(self, folder: str) -> FakeService:
        self.loading.set()
        assert self.free.wait(30)
        if folder == "bug":
            raise KeyError("mix")
        if folder not in self.services:
            raise ArtifactError(f"{folder} has no models/index; run `dvc repro` there")
        return self.services[folder]

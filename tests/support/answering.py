"""A recommender without a network, for tests of commands that ask one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mufin.artifacts.contents import seal
from mufin.artifacts.tables import write_table
from mufin.commands import predict, recommend
from mufin.profiles import text_of_profile
from mufin.serving.answers import Answer, Descriptor, Product, Reason
from mufin.serving.query import Query, QueryError

TITLES = {"a": "Mug \x1b[2J\u202e\x9b é", "b\u2028": "Jar", "c": "Cup", "bare": ""}
ATTRIBUTES = {
    "price": {"kind": "number", "min": 1.0, "max": 30.0},
    "in_stock": {"kind": "flag"},
    "category": {"kind": "text", "values": ["Mugs", "Cups, big"], "more": False},
    "brand": {"kind": "text", "values": ["Acme"], "more": True},
}
WHY = (Reason(Descriptor("a", "picture", 1), Descriptor("c", "title", 0), 0.25, "cosine"),)


class Answering:
    """Answers with the products that are not asked about; remembers what it was asked.

    `bare` has nothing to compare, so its answers are by popularity. A picture whose bytes are
    b"broken" is refused. `slow`: seconds per question.
    """

    def __init__(self, model: str = "model 1", slow: float = 0.0):
        self.model, self.slow = model, slow
        self.asked: list[Query] = []

    def answers(self, queries: Sequence[Query]) -> list[list[Answer] | QueryError]:
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> list[Answer] | QueryError:
        self.asked.append(query)
        time.sleep(self.slow)
        for uid in query.uids:
            if uid not in TITLES:
                return QueryError("uids", f"{uid} is not a product of the catalog")
        if query.new and b"broken" in query.new.pictures:
            return QueryError("images", "a picture cannot be read; give another one or none")
        score = 0.5 + len(query.new.title) if query.new else 0.5
        barred = {*query.uids, *query.exclude}
        uids = [uid for uid in ("b\u2028", "c", "a") if uid not in barred]
        if query.candidates is not None:
            uids = [uid for uid in uids if uid in query.candidates]
        why = WHY if query.reasons else ()
        parts = {"classifier": 0.25, "similarity": 0.25}
        bare = query.uids == ("bare",)
        return [
            Answer(uid, TITLES[uid], score - i, parts, why, bare)
            for i, uid in enumerate(uids[: query.k])
        ]

    def product(self, uid: str) -> Product | None:
        if uid not in TITLES:
            return None
        return Product(uid, TITLES[uid], (), {}, (), answerable=True, live=False)

    def info(self) -> dict:
        return {"id": self.model, "labels": 3, "attributes": ATTRIBUTES}


def catalog(home: Path) -> None:
    """Settings, and data/curated with the products of `TITLES`."""
    (home / "params.yaml").write_text(text_of_profile("sample"))
    folder = home / "data/curated"
    folder.mkdir(parents=True)
    columns: dict = {"uid": list(TITLES), "title": list(TITLES.values())}
    empty: list[list[str]] = [[] for _ in TITLES]
    write_table(
        columns | {"images": empty, "category": empty}, "products", folder / "products.parquet"
    )
    seal(folder)


def answered_by(recommender: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands ask this recommender."""
    for module in (recommend, predict):
        monkeypatch.setattr(module, "load", lambda home: recommender)

"""What the HTTP server needs of a recommender and of a store of live products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mufin.serving.answers import Answer, Product
from mufin.serving.live_product import LiveProduct
from mufin.serving.query import Query, QueryError


class Service(Protocol):
    """A recommender. One thread calls all of it (see `engine`)."""

    def answers(self, queries: Sequence[Query]) -> list[list[Answer] | QueryError]:
        """One result per question; a bad question gives its error and raises nothing."""

    def product(self, uid: str) -> Product | None:
        """A product of the catalog or a live one."""

    def picture(self, key: str) -> bytes | None:
        """The encoded picture of a key that `product` named."""

    def find(self, text: str, limit: int) -> list[Product]:
        """Products whose title or uid contains the text."""

    def info(self) -> dict[str, Any]:
        """What GET /v1/model says; `id` names the model, `live` counts live products."""

    def refusals(self, products: Sequence[LiveProduct]) -> list[QueryError | None]:
        """What speaks against each product; called before the store keeps any of them."""

    def upsert(self, products: Sequence[LiveProduct]) -> None:
        """Add products, or replace those of the same uid."""

    def delete(self, uids: Sequence[str]) -> None:
        """Take products out of all answers; unknown ones are passed over."""


class Keeper(Protocol):
    """What keeps live products beyond the life of the process."""

    def commit(self, upserts: Sequence[LiveProduct], deletes: Sequence[str]) -> None:
        """Keep all of these changes, or none and raise; no uid is in both."""

    def restore(self, service: Any) -> None:
        """Apply all kept changes to a Service that was just loaded."""


class NoKeeper:
    """Keeps nothing: live products end with the process."""

    def commit(self, upserts: Sequence[LiveProduct], deletes: Sequence[str]) -> None:
        pass

    def restore(self, service: Any) -> None:
        pass

"""The recommender that commands ask: the one place where they load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mufin.serving.answers import Answer, Product
from mufin.serving.query import Query, QueryError


class Asks(Protocol):
    """What commands ask of a recommender."""

    def answers(self, queries: Sequence[Query]) -> list[list[Answer] | QueryError]: ...
    def product(self, uid: str) -> Product | None: ...
    def info(self) -> dict: ...


def load(home: Path) -> Asks:
    """The recommender in the folder of a finished `dvc repro`.

    Raises MufinError if something is missing, damaged or of another run.
    """
    from mufin.serving.recommender import Recommender  # torch takes seconds to import

    return Recommender.load(home)


def uids_of(home: Path) -> list[str]:
    """The uids of all products of the catalog, in its order; raises ArtifactError."""
    from mufin.artifacts.tables import read_table

    table = read_table(home / "data/curated/products.parquet", "products", ["uid"])
    return table["uid"].to_pylist()

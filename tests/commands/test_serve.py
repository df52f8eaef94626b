"""`mufin serve`: what it does with a store before it serves."""

from __future__ import annotations

import os

import pytest

from mufin.commands import serve
from mufin.errors import MufinError
from mufin.serving.live_product import LiveProduct
from mufin.serving.store import ProductStore


@pytest.fixture
def store(tmp_path):
    """A store of 40 products with a picture of 50 kB each."""
    with ProductStore(tmp_path / "store.sqlite") as opened:
        opened.upsert([LiveProduct(f"P{i}", pictures=(os.urandom(50_000),)) for i in range(40)])
        yield opened


def test_a_store_that_is_mostly_free_is_written_anew(store):
    store.delete([f"P{i}" for i in range(1, 40)])
    assert store.free_share() > serve.FREE
    serve._compact(store)
    assert store.free_share() < 0.1
    assert store.path.stat().st_size < 200_000  # 2 MB before
    assert [product.uid for product in store.products()] == ["P0"]


def test_a_store_with_little_free_space_stays(store, monkeypatch):
    store.delete(["P0"])
    assert 0 < store.free_share() < serve.FREE
    monkeypatch.setattr(store, "compact", lambda: pytest.fail("it was written anew"))
    serve._compact(store)


def test_a_store_that_cannot_be_written_anew_is_served(store, monkeypatch, capsys):
    store.delete([f"P{i}" for i in range(40)])

    def full():
        raise MufinError("the store cannot be compacted (database or disk is full)")

    monkeypatch.setattr(store, "compact", full)
    serve._compact(store)
    assert capsys.readouterr().err.startswith("warning: the store cannot be compacted")

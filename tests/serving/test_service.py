"""A recommender beside its store: what was kept is there again, whatever ends the process."""

from __future__ import annotations

import pytest

from mufin.serving.live_product import LiveProduct
from mufin.serving.query import Query
from mufin.serving.service import Service, StoreKeeper
from mufin.serving.store import ProductStore
from tests.serving.test_changes import ALL, picture


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch) -> None:
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    monkeypatch.setenv("MUFIN_WORKERS", "1")


def answers_of(service: Service) -> dict[str, float]:
    [answers] = service.answers([Query(uids=(service.recommender.model.uids[4],), k=ALL)])
    return {answer.uid: answer.score for answer in answers}


def changed(service: Service, store: ProductStore) -> None:
    """Some changes, as the engine makes them: first kept, then applied."""
    labels = service.recommender.catalog
    products = [
        LiveProduct("a", "red mug", ("New",), {"cost": 2.0}, (picture("red"),)),
        LiveProduct("b", "blue cup"),
        LiveProduct(labels.uid(3), "another title", (), {"cost": 5.0}),
        LiveProduct("gone", "thing"),
    ]
    assert service.refusals(products) == [None] * 4
    keeper = StoreKeeper(store)
    keeper.commit(products, [labels.uid(5)])
    service.delete([labels.uid(5)])
    service.upsert(products)
    keeper.commit([], ["gone"])
    service.delete(["gone"])


def test_changes_are_there_after_a_restart_and_not_encoded_again(finished, tmp_path, monkeypatch):
    with ProductStore(tmp_path / "store.sqlite") as store:
        service = Service.load(finished, store)
        before = answers_of(service)
        changed(service, store)
        expected = answers_of(service)
        assert {"a", "b"} <= expected.keys() - before.keys() and "gone" not in expected
    with ProductStore(tmp_path / "store.sqlite") as store:
        again = Service.load(finished, store)
        assert answers_of(again) == pytest.approx(before, abs=1e-6)
        datapoints = again.recommender.catalog.datapoints
        monkeypatch.setattr(datapoints, "embed_new", lambda _: pytest.fail("encoded again"))
        again.restore()
        assert answers_of(again) == pytest.approx(expected, abs=1e-5)
        assert again.live_products() == 3
        key = again.product("a").pictures[0]
        assert again.picture(key) == picture("red")
        assert not again.recommender.catalog.contents  # the store has them


def test_another_model_makes_its_own_vectors_of_the_store(finished, tmp_path):
    with ProductStore(tmp_path / "store.sqlite") as store:
        service = Service.load(finished, store)
        changed(service, store)
        expected = answers_of(service)
        other = Service.load(finished, store)
        object.__setattr__(other.recommender.model, "id", "0" * 12)
        other.restore()
        assert answers_of(other) == pytest.approx(expected, abs=1e-4)
        assert set(store.vectors("0" * 12, ["a", "b"])) == {"a", "b"}
        assert not store.vectors(service.recommender.model.id, ["a", "b"])  # gone


def test_a_refused_product_is_named_before_it_is_kept(finished, tmp_path):
    with ProductStore(tmp_path / "store.sqlite") as store:
        service = Service.load(finished, store)
        bad = LiveProduct("c", "mug", (), {}, (b"no picture",))
        number = LiveProduct("d", "mug", (), {"price": "cheap"})
        good = LiveProduct("e", "mug")
        refusals = service.refusals([bad, good, number])
        assert [getattr(r, "field", None) for r in refusals] == ["images", None, "attributes"]


def test_settling_ends(finished):
    service = Service.load(finished)
    service.upsert([LiveProduct(f"n{i}", f"thing {i}") for i in range(20)])
    service.delete([f"n{i}" for i in range(19)])
    for _ in range(100):
        if not service.settle():
            break
    assert not service.settle() and "n19" in answers_of(service)

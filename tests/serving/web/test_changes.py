"""Changes of products: kept, then applied, then acknowledged, many in one transaction."""

from __future__ import annotations

import random
import time

import pytest

from mufin.errors import MufinError
from mufin.serving.live_product import LiveProduct
from mufin.serving.query import Query, QueryError
from mufin.serving.web.engine import Engine
from mufin.serving.web.limits import Settings
from mufin.serving.web.metrics import Metrics
from mufin.serving.web.refusals import Refusal
from tests.support.fake_service import FakeKeeper, FakeService
from tests.support.web import SECONDS


def soon() -> float:
    return time.monotonic() + SECONDS


class Bench:
    """An engine whose thread is held, so that the changes that follow wait together."""

    def __init__(self):
        self.service, self.keeper = FakeService(), FakeKeeper()
        self.engine = Engine(Settings(), self.keeper, Metrics())
        self.engine.start()
        self.engine.switch(self.service).result(SECONDS)

    def hold(self) -> None:
        self.service.blocked.clear()
        self.service.entered.clear()
        self.engine.ask([Query(uids=("p0",))], soon())
        assert self.service.entered.wait(SECONDS)

    def change(self, upserts=(), deletes=()):
        products = [LiveProduct(*p) if isinstance(p, tuple) else p for p in upserts]
        return self.engine.change(products, list(deletes), soon())


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.service.blocked.set()
    bench.engine.stop(SECONDS)


def test_waiting_changes_are_one_transaction(bench):
    bench.hold()
    futures = [bench.change([(f"n{n}", "Jug")]) for n in range(20)] + [bench.change([], ["p1"])]
    bench.service.blocked.set()
    assert [f.result(SECONDS).upserted for f in futures] == [1] * 20 + [0]
    [(upserts, deletes)] = bench.keeper.commits
    assert [p.uid for p in upserts] == [f"n{n}" for n in range(20)] and deletes == ["p1"]


def test_a_change_is_kept_before_it_is_applied_and_acknowledged(bench):
    bench.keeper.free.clear()
    future = bench.change([("new", "Jug")])
    time.sleep(0.05)
    assert not future.done() and "new" not in bench.service.products
    bench.keeper.free.set()
    [now] = future.result(SECONDS).products
    assert now.title == "Jug" and now.live and bench.keeper.kept["new"].title == "Jug"


def test_changes_of_one_product_leave_the_last_one(bench):
    bench.hold()
    counts = [
        bench.change([("a", "1")]),
        bench.change([], ["a", "p1", "nope", "a"]),
        bench.change([], ["p1"]),
        bench.change([("a", "2"), ("b", "3")]),
        bench.change([], ["b"]),
    ]
    bench.service.blocked.set()
    assert [f.result(SECONDS).deleted for f in counts] == [0, 2, 0, 0, 1]
    [(upserts, deletes)] = bench.keeper.commits
    assert [(p.uid, p.title) for p in upserts] == [("a", "2")]
    assert sorted(deletes) == ["b", "nope", "p1"]
    assert "a" in bench.service.products and "p1" not in bench.service.products


def test_a_group_of_changes_leaves_what_one_after_another_would(bench):
    chance = random.Random(1)
    plain: dict[str, str] = {f"p{n}": f"Mug {n}" for n in range(50)}
    for _ in range(20):
        bench.hold()
        futures = []
        for step in range(30):
            uids = [f"p{chance.randrange(8)}" for _ in range(chance.randrange(1, 4))]
            if chance.random() < 0.5:
                futures.append(bench.change([(uid, str(step)) for uid in uids]))
                plain |= {uid: str(step) for uid in uids}
            else:
                there = sum(plain.pop(uid, None) is not None for uid in uids)
                futures.append((bench.change([], uids), there))
        bench.service.blocked.set()
        for future in futures:
            if isinstance(future, tuple):
                assert future[0].result(SECONDS).deleted == future[1]
            else:
                future.result(SECONDS)
        assert {uid: p.title for uid, p in bench.service.products.items()} == plain


def test_a_refused_product_is_not_kept_and_harms_no_other(bench):
    bench.hold()
    good, bad = bench.change([("g", "Jug")]), bench.change([("ok", "x"), ("b", "refused")])
    bench.service.blocked.set()
    assert good.result(SECONDS).upserted == 1
    with pytest.raises(QueryError) as refused:
        bad.result(SECONDS)
    assert refused.value.field == "1.title" and "b" not in bench.keeper.kept
    assert "ok" not in bench.service.products


def test_a_change_that_cannot_be_kept_harms_no_other(bench):
    bench.hold()
    bad, good = bench.change([("b", "not kept")]), bench.change([("g", "Jug")])
    bench.service.blocked.set()
    with pytest.raises(Refusal) as refused:
        bad.result(SECONDS)
    assert refused.value.status == 503 and "nothing was changed" in refused.value.text
    assert good.result(SECONDS).upserted == 1 and "b" not in bench.service.products


def test_the_store_says_why_a_change_is_not_kept(bench):
    bench.keeper.fails = MufinError("the disk is full; free some of it")
    with pytest.raises(Refusal, match="the disk is full"):
        bench.change([("b", "Jug")]).result(SECONDS)
    bench.keeper.fails = None
    assert bench.change([("b", "Jug")]).result(SECONDS).upserted == 1


def test_a_change_that_is_kept_but_not_applied_is_no_success(bench):
    with pytest.raises(Refusal) as refused:
        bench.change([("b", "not applied")]).result(SECONDS)
    assert refused.value.status == 500 and bench.engine.ready

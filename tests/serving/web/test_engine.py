"""The device thread: order, batches, deadlines, and what fails alone."""

from __future__ import annotations

import threading
import time

import pytest

from mufin.serving.query import NewProduct, Query, QueryError
from mufin.serving.web.engine import Engine
from mufin.serving.web.limits import Settings
from mufin.serving.web.metrics import Metrics
from mufin.serving.web.refusals import Refusal
from tests.support.fake_service import FakeKeeper, FakeService
from tests.support.web import SECONDS, eventually


def soon() -> float:
    return time.monotonic() + SECONDS


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def engine(service):
    engine = Engine(Settings(max_batch=4, max_queue=64), FakeKeeper(), Metrics())
    engine.start()
    engine.switch(service).result(SECONDS)
    yield engine
    service.blocked.set()
    engine.stop(SECONDS)
    assert not engine.thread.is_alive()


def held(engine: Engine, service: FakeService):
    """A question that is inside of the recommender until `service.blocked` is set."""
    service.blocked.clear()
    service.entered.clear()
    future = engine.ask([Query(uids=("p0",))], soon())
    assert service.entered.wait(SECONDS)
    return future


def test_waiting_questions_are_answered_in_batches_of_at_most_max_batch(engine, service):
    first = held(engine, service)
    futures = [engine.ask([Query(uids=(f"p{n}",), k=2)], soon()) for n in range(10)]
    service.blocked.set()
    for n, future in enumerate(futures):
        [(answers, products)], model = future.result(SECONDS)
        expected = [uid for uid in ("p0", "p1", "p2") if uid != f"p{n}"][:2]
        assert [a.uid for a in answers] == expected == list(products) and model == "first"
    assert first.result(SECONDS) and service.batches == [1, 4, 4, 2]


def test_questions_of_one_request_fill_several_batches_in_order(engine, service):
    held(engine, service)
    queries = [Query(uids=(f"p{n}",), k=1) for n in range(11)]
    one, two = engine.ask(queries, soon()), engine.ask(queries[:2], soon())
    service.blocked.set()
    results, _ = one.result(SECONDS)
    assert [r[0][0].uid for r in results] == ["p1"] + ["p0"] * 10
    assert len(two.result(SECONDS)[0]) == 2 and service.batches == [1, 4, 4, 4, 1]


def test_a_lone_question_does_not_wait_for_others(service):
    engine = Engine(Settings(max_wait_ms=60_000), FakeKeeper(), Metrics())
    engine.start()
    engine.switch(service).result(SECONDS)
    assert engine.ask([Query(uids=("p0",))], soon()).result(SECONDS)
    engine.stop(SECONDS)


def test_a_batch_waits_for_a_question_that_is_being_read(service):
    engine = Engine(Settings(max_wait_ms=60_000, max_batch=2), FakeKeeper(), Metrics())
    engine.start()
    engine.switch(service).result(SECONDS)
    with engine.expecting():
        first = engine.ask([Query(uids=("p0",))], soon())
        eventually(lambda: not engine.waiting)
        second = engine.ask([Query(uids=("p1",))], soon())
    assert first.result(SECONDS) and second.result(SECONDS) and service.batches == [2]
    engine.stop(SECONDS)


def test_a_question_whose_deadline_passed_is_dropped(engine, service):
    held(engine, service)
    late = engine.ask([Query(uids=("p1",))], time.monotonic() + 0.01)
    change = engine.change([], ["p1"], time.monotonic() + 0.01)
    other = engine.ask([Query(uids=("p2",))], soon())
    time.sleep(0.05)
    service.blocked.set()
    assert other.result(SECONDS)
    for future in (late, change):
        with pytest.raises(Refusal) as refused:
            future.result(SECONDS)
        assert refused.value.status == 504
    assert service.batches == [1, 1] and not service.deleted and engine.waiting == 0


def test_a_question_that_nobody_waits_for_is_dropped(engine, service):
    held(engine, service)
    left = [engine.ask([Query(uids=("p1",))], soon()), engine.change([], ["p1"], soon())]
    assert all(future.cancel() for future in left)
    service.blocked.set()
    assert engine.look(lambda s: s.product("p1"), soon()).result(SECONDS)
    assert service.batches == [1] and not service.deleted and engine.waiting == 0


def test_a_full_queue_refuses_and_asks_to_come_back(engine, service):
    held(engine, service)
    for _ in range(64):
        engine.ask([Query(uids=("p1",))], soon())
    for put in (
        lambda: engine.ask([Query(uids=("p1",))], soon()),
        lambda: engine.change([], ["p1"], soon()),
        lambda: engine.look(lambda s: s.info(), soon()),
    ):
        with pytest.raises(Refusal) as refused:
            put()
        assert refused.value.status == 503 and refused.value.headers["Retry-After"] == "1"
    assert engine.waiting == 64


def test_questions_of_a_request_are_taken_all_or_none(engine, service):
    held(engine, service)
    engine.ask([Query(uids=("p1",))] * 60, soon())
    with pytest.raises(Refusal):
        engine.ask([Query(uids=("p1",))] * 5, soon())
    assert engine.waiting == 60


def test_a_question_that_breaks_the_recommender_fails_alone(engine, service):
    held(engine, service)
    futures = [engine.ask([Query(uids=(f"p{n}",))], soon()) for n in range(2)]
    bad = engine.ask([Query(new=NewProduct("poison"))], soon())
    wrong = engine.ask([Query(uids=("nope",))], soon())
    service.blocked.set()
    assert all(len(f.result(SECONDS)[0][0]) == 2 for f in futures)
    [failure], _ = bad.result(SECONDS)
    assert isinstance(failure, Refusal) and failure.status == 500
    [error], _ = wrong.result(SECONDS)
    assert isinstance(error, QueryError) and error.field == "uids"


def test_a_result_too_few_is_an_error_and_not_a_shift(engine, service, monkeypatch):
    monkeypatch.setattr(service, "answers", lambda queries: [])
    [failure], _ = engine.ask([Query(uids=("p1",))], soon()).result(SECONDS)
    assert failure.status == 500


def test_a_look_that_fails_does_not_end_the_thread(engine):
    with pytest.raises(Refusal) as refused:
        engine.look(lambda service: 1 / 0, soon()).result(SECONDS)
    assert refused.value.status == 500 and engine.ready
    assert engine.look(lambda service: service.info()["id"], soon()).result(SECONDS) == "first"


def test_jobs_run_in_the_order_in_which_they_came(engine, service):
    held(engine, service)
    before = engine.look(lambda s: s.product("p1") is not None, soon())
    deleted = engine.change([], ["p1"], soon())
    after = engine.look(lambda s: s.product("p1") is not None, soon())
    asked = engine.ask([Query(uids=("p1",))], soon())
    switched = engine.switch(FakeService("second"))
    anew = engine.ask([Query(uids=("p1",))], soon())
    service.blocked.set()
    assert before.result(SECONDS) and not after.result(SECONDS)
    assert deleted.result(SECONDS).deleted == 1
    [error], model = asked.result(SECONDS)
    assert isinstance(error, QueryError) and model == "first"
    assert switched.result(SECONDS)["id"] == "second" and anew.result(SECONDS)[1] == "second"


def test_stopping_answers_what_was_accepted_and_takes_nothing_more(engine, service):
    first = held(engine, service)
    futures = [engine.ask([Query(uids=("p1",))], soon()) for _ in range(9)]
    stopping = threading.Thread(target=engine.stop)
    stopping.start()
    eventually(lambda: engine.stopping)
    with pytest.raises(Refusal) as refused:
        engine.ask([Query(uids=("p1",))], soon())
    assert refused.value.status == 503 and not engine.ready
    service.blocked.set()
    stopping.join(SECONDS)
    assert all(f.done() and f.result() for f in [first, *futures])


def test_nothing_is_asked_before_a_model_is_loaded():
    engine = Engine(Settings(), FakeKeeper(), Metrics())
    with pytest.raises(Refusal, match="being loaded"):
        engine.ask([Query(uids=("p1",))], soon())
    assert not engine.ready

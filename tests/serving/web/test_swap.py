"""Another model in place of the present one, while questions and changes go on."""

from __future__ import annotations

import threading

import pytest

from tests.support.fake_service import FakeService
from tests.support.web import SECONDS, eventually, metric, running


def models() -> tuple[FakeService, FakeService]:
    return FakeService("first"), FakeService("second")


def swap(client, folder: str, **settings):
    return client.post("/v1/model", json={"folder": folder}, **settings)


def test_a_swap_under_load_drops_nothing_and_mixes_no_answers():
    with running(*models()) as now:
        over, seen, errors = threading.Event(), [], []

        def calls() -> None:
            try:
                with now.client() as client:
                    while not over.is_set():
                        queries = [{"uids": [f"p{n}"], "k": 3} for n in range(5)]
                        body = client.post("/v1/recommend/batch", json={"queries": queries})
                        assert body.status_code == 200, body.text
                        model, results = body.json()["model"], body.json()["results"]
                        titles = {a["title"].split()[0] for r in results for a in r["answers"]}
                        assert titles == {model}
                        seen.append(model)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=calls) for _ in range(12)]
        for thread in threads:
            thread.start()
        with now.client() as client:
            for folder in ("second", "first", "second"):
                eventually(lambda n=len(seen): len(seen) > n + 30 or errors)
                response = swap(client, folder)
                assert response.status_code == 200 and response.json()["id"] == folder
        eventually(lambda n=len(seen): len(seen) > n + 30 or errors)
        over.set()
        for thread in threads:
            thread.join(SECONDS)
        assert not errors and set(seen) == {"first", "second"} and seen[-1] == "second"


def test_questions_are_answered_by_the_old_model_while_another_loads():
    first, second = models()
    with running(first, second) as now, now.client() as client:
        now.models.free.clear()
        now.models.loading.clear()
        answers = []
        swapping = threading.Thread(target=lambda: answers.append(swap(client, "second")))
        swapping.start()
        assert now.models.loading.wait(SECONDS)
        assert client.post("/v1/recommend", json={"uids": ["p1"]}).json()["model"] == "first"
        assert client.get("/readyz").status_code == 200
        other = swap(client, "second")
        assert other.status_code == 409 and "being loaded" in other.json()["error"]
        now.models.free.set()
        swapping.join(SECONDS)
        assert answers[0].status_code == 200
        assert client.post("/v1/recommend", json={"uids": ["p1"]}).json()["model"] == "second"
        assert client.get("/v1/model").json()["id"] == "second"


def test_changes_while_a_model_loads_are_in_both():
    """Before the store is read, and after: none is lost, and the last one of a product wins."""
    first, second = models()
    with running(first, second) as now, now.client() as client:
        client.put("/v1/products/early", json={"title": "1"})
        client.put("/v1/products/twice", json={"title": "1"})
        now.models.free.clear()
        now.models.loading.clear()
        now.keeper.restoring.clear()
        swapping = threading.Thread(target=lambda: swap(client, "second"))
        swapping.start()
        assert now.models.loading.wait(SECONDS)
        client.put("/v1/products/during", json={"title": "2"})
        now.engine.condition.acquire()  # the switch waits, after the store was read
        now.models.free.set()
        assert now.keeper.restoring.wait(SECONDS)
        assert {"early", "during"} <= set(second.products)
        now.engine.condition.release()
        swapping.join(SECONDS)
        client.put("/v1/products/after", json={"title": "3"})
        for uid in ("early", "during", "after", "twice"):
            assert client.get(f"/v1/products/{uid}").json()["live"]
        assert "after" not in first.products


def test_a_change_after_the_store_was_read_is_in_the_new_model(monkeypatch):
    first, second = models()
    with running(first, second) as now, now.client() as client:
        client.put("/v1/products/x", json={"title": "old"})
        restore, read, go_on = now.keeper.restore, threading.Event(), threading.Event()

        def slow(service):
            restore(service)
            read.set()
            assert go_on.wait(SECONDS)

        monkeypatch.setattr(now.keeper, "restore", slow)
        swapping = threading.Thread(target=lambda: swap(client, "second"))
        swapping.start()
        assert read.wait(SECONDS)
        client.put("/v1/products/x", json={"title": "new"})
        client.put("/v1/products/y", json={"title": "new"})
        client.delete("/v1/products/p1")
        go_on.set()
        swapping.join(SECONDS)
        assert client.get("/v1/model").json()["id"] == "second"
        assert client.get("/v1/products/x").json()["title"] == "new"
        assert client.get("/v1/products/y").json()["title"] == "new"
        assert client.get("/v1/products/p1").status_code == 404


@pytest.mark.parametrize("folder", ["nope", "bug", "../../etc", "/", "é" * 400, "-rf"])
def test_a_folder_that_does_not_load_leaves_the_present_model(folder):
    with running(*models()) as now, now.client() as client:
        client.put("/v1/products/x", json={"title": "kept"})
        response = swap(client, folder)
        assert response.status_code == 422 and response.json()["field"] == "folder"
        assert len(response.json()["error"]) <= 300
        assert client.post("/v1/recommend", json={"uids": ["x"]}).json()["model"] == "first"
        assert now.engine.since is None  # changes are recorded no longer
        assert metric(client.get("/metrics").text, 'mufin_swaps_total{ok="no"}') == 1
        assert swap(client, "second").status_code == 200  # the next one is not blocked


@pytest.mark.parametrize("body", [{}, {"folder": ""}, {"folder": 5}, {"folder": "a\0b"}])
def test_a_bad_request_for_a_swap_names_its_field(body):
    with running(*models()) as now, now.client() as client:
        response = client.post("/v1/model", json=body)
        assert response.status_code == 422 and response.json()["field"] == "folder"
        assert now.engine.model == "first"


def test_a_model_that_cannot_take_the_live_products_does_not_answer(monkeypatch):
    first, second = models()
    with running(first, second) as now, now.client() as client:
        monkeypatch.setattr(second, "info", lambda: {})
        assert swap(client, "second").status_code == 422
        monkeypatch.setattr(now.keeper, "restore", lambda service: 1 / 0)
        assert swap(client, "second").status_code == 422
        assert client.get("/v1/model").json()["id"] == "first"


def test_a_swap_of_a_caller_who_leaves_goes_on():
    with running(*models()) as now, now.client() as client:
        now.models.free.clear()
        assert swap(client, "second", headers={"X-Request-Timeout": "0.2"}).status_code == 504
        now.models.free.set()
        eventually(lambda: now.engine.model == "second")
        assert swap(client, "first").status_code == 200

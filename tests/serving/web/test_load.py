"""Many callers at once, and hostile ones: nothing is lost, and too much is refused at once."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from mufin.serving.web import protocol, serve
from tests.support.web import SECONDS, eventually, running

QUESTION = b'{"uids": ["p1"], "k": 1}'
HEAD = b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def ask(client, uid: str = "p1", **headers):
    return client.post("/v1/recommend", json={"uids": [uid], "k": 1}, headers=headers)


def in_threads(count: int, function) -> list:
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(function, n) for n in range(count)]]


def test_32_callers_at_once_lose_nothing_and_share_batches():
    with running() as now:
        now.service.slow = 0.002

        def calls(number: int) -> int:
            with now.client() as client:
                for n in range(25):
                    uid = f"p{(number + n) % 50}"
                    answer = ask(client, uid).json()["answers"][0]
                    assert answer["uid"] == ("p1" if uid == "p0" else "p0")
            return 25

        assert sum(in_threads(32, calls)) == 800 == sum(now.service.batches)
        assert 1 < max(now.service.batches) <= 32 and len(now.service.threads) == 1


def test_changes_and_questions_of_many_callers_lose_nothing():
    with running() as now:

        def calls(number: int) -> None:
            with now.client() as client:
                for n in range(10):
                    uid = f"new-{number}-{n}"
                    assert client.put(f"/v1/products/{uid}", json={"title": uid}).is_success
                    assert client.get(f"/v1/products/{uid}").json()["title"] == uid
                    assert ask(client, uid).status_code == 200

        in_threads(16, calls)
        assert len(now.keeper.kept) == 160 and len(now.keeper.commits) <= 160
        assert sum(uid.startswith("new-") for uid in now.service.products) == 160


def test_a_full_queue_is_503_with_retry_after_and_the_rest_is_answered():
    with running(max_queue=64, max_batch=8) as now:
        now.service.blocked.clear()
        with ThreadPoolExecutor(100) as pool, now.client() as client:
            futures = [pool.submit(lambda: ask(client)) for _ in range(90)]
            eventually(lambda: sum(f.done() for f in futures) >= 90 - 64 - 8)
            assert client.get("/healthz").status_code == 200
            refused = client.get("/v1/model")
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert "wait already" in refused.json()["error"]
            now.service.blocked.set()
            responses = [future.result() for future in futures]
        counts = Counter(response.status_code for response in responses)
        assert set(counts) == {200, 503} and 64 <= counts[200] <= 64 + 8
        late = [r for r in responses if r.status_code == 503]
        assert all(r.headers["retry-after"] == "1" and r.json()["error"] for r in late)


def test_too_many_requests_under_way_are_503_but_probes_are_answered():
    with running(requests=4) as now:
        now.service.blocked.clear()
        with ThreadPoolExecutor(8) as pool, now.client() as client:
            futures = [pool.submit(lambda: ask(client)) for _ in range(4)]
            value = now.engine.metrics.registry.get_sample_value
            eventually(lambda: value("mufin_requests_under_way") == 4)
            refused = ask(client)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert client.get("/healthz").is_success and client.get("/readyz").is_success
            now.service.blocked.set()
            assert all(future.result().status_code == 200 for future in futures)


def test_a_question_past_its_time_is_504_at_once_and_dropped():
    with running(seconds=0.5) as now, now.client() as client:
        now.service.blocked.clear()
        start = time.monotonic()
        first, second = in_threads(2, lambda n: ask(client))
        assert time.monotonic() - start < 3
        for response in (first, second):
            assert response.status_code == 504 and "in its time" in response.json()["error"]
        now.service.blocked.set()
        assert ask(client).status_code == 200
        assert sum(now.service.batches) <= 3


def test_a_caller_may_give_less_time_but_not_more():
    with running(seconds=4.0) as now, now.client() as client:
        now.service.blocked.clear()
        for asked, most in (("0.1", 3), ("inf", 10)):
            start = time.monotonic()
            assert ask(client, **{"X-Request-Timeout": asked}).status_code == 504
            assert time.monotonic() - start < most
        now.service.blocked.set()
        for asked in ("0", "-1", "nan", "x", ""):
            assert ask(client, **{"X-Request-Timeout": asked}).status_code == 400


def test_a_change_that_is_late_is_not_made():
    with running(seconds=0.5) as now, now.client() as client:
        now.service.blocked.clear()
        asking = threading.Thread(target=lambda: ask(client))
        asking.start()
        assert now.service.entered.wait(SECONDS)
        assert client.put("/v1/products/late", json={}).status_code == 504
        asking.join(SECONDS)
        now.service.blocked.set()
        assert client.get("/v1/products/late").status_code == 404 and not now.keeper.commits


def refused_as_too_large(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 413") and b'"error":"the body has more' in answer


def test_a_body_beyond_the_limit_is_413_however_it_is_announced():
    with running(body_bytes=1000) as now:
        large = b"x" * 5000
        announced = HEAD + b"Content-Length: 5000\r\n\r\n" + large
        in_chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        chunked = in_chunks + b"1388\r\n" + large + b"\r\n0\r\n\r\n"
        many = in_chunks + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n"
        for request in (announced, chunked, many):
            assert refused_as_too_large(now.raw(request))
        huge = HEAD + b"Content-Length: 99999999999999999999\r\n\r\n"
        assert refused_as_too_large(now.raw(huge, until=b"}"))
        fits = QUESTION.ljust(1000)
        found = now.raw(HEAD + b"Content-Length: 1000\r\n\r\n" + fits, until=b"milliseconds")
        assert found.startswith(b"HTTP/1.1 200")


def test_a_body_without_end_is_413_and_the_connection_ends():
    with running(body_bytes=1000) as now:
        endless = [b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 2000
        start = time.monotonic()
        now.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *endless)
        assert time.monotonic() - start < SECONDS
        with now.client() as client:
            assert 'status="413"' in client.get("/metrics").text
            assert ask(client).status_code == 200


def test_json_that_would_fill_the_memory_is_413():
    with running() as now, now.client() as client:
        body = b'{"uids": [' + b"[]," * 8_000_000 + b"[]]}"
        response = client.post(
            "/v1/recommend", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 413 and "values" in response.json()["error"]


def test_a_large_question_does_not_stop_the_others():
    with running() as now, now.client() as client:
        many = [f"product-{n}" for n in range(10_000)]
        query = {"uids": ["p1"], "candidates": many, "exclude": many, "k": 1000}
        large = {"queries": [query] * 64}
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(lambda: client.post("/v1/recommend/batch", json=large))
            longest = 0.0
            with now.client() as other:
                while not future.done():
                    start = time.monotonic()
                    assert other.get("/healthz").status_code == 200
                    longest = max(longest, time.monotonic() - start)
            assert future.result().status_code == 200 and longest < 2.0


def test_bodies_of_all_requests_together_are_bounded():
    with running(held_bytes=3000, body_bytes=2000) as now:
        now.service.blocked.clear()
        body = QUESTION.ljust(1800)
        request = HEAD + b"Content-Length: 1800\r\n\r\n" + body
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(now.raw, request, until=b"milliseconds")
            assert now.service.entered.wait(SECONDS)
            assert now.raw(request, until=b"}").startswith(b"HTTP/1.1 503")
            now.service.blocked.set()
            assert first.result().startswith(b"HTTP/1.1 200")
        assert now.raw(request, until=b"milliseconds").startswith(b"HTTP/1.1 200")


def test_a_body_that_does_not_come_is_504():
    with running(seconds=0.4) as now:
        found = now.raw(HEAD + b"Content-Length: 100\r\n\r\n{", until=b"}")
        assert found.startswith(b"HTTP/1.1 504")


def test_a_caller_who_leaves_in_the_body_harms_nobody():
    with running() as now:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", now.port)) as connection:
                connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        with now.client() as client:
            assert ask(client).status_code == 200
            text = client.get("/metrics").text
            eventually(lambda: "mufin_requests_under_way 1.0" in client.get("/metrics").text)
            assert 'status="500"' not in text


def test_a_head_that_does_not_come_ends_the_connection(monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    with running() as now:
        for begin in (b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX"):
            start = time.monotonic()
            assert now.raw(begin) == b"" and time.monotonic() - start < 3
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        start = time.monotonic()
        found = now.raw(whole, b"GET /heal")  # the head of the second request on a connection
        assert found.count(b"HTTP/1.1 200") == 1 and time.monotonic() - start < 5
        found = now.raw(whole + b"GET /heal")  # it came with the first request
        assert found.count(b"HTTP/1.1 200") == 1 and time.monotonic() - start < 10
        parts = [whole[n : n + 1] for n in range(len(whole))]
        found = now.raw(*parts[:10], b"", *parts[10:], pause=0.1)
        assert found == b""  # a byte now and then does not hold it


def test_a_long_answer_outlives_the_time_of_a_head(monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with running() as now, now.client() as client:
        now.service.slow = 0.6
        assert ask(client).status_code == 200


def test_an_answer_that_is_not_read_ends_the_connection(monkeypatch):
    monkeypatch.setattr(protocol, "UNREAD_MS", 500)
    with running(seconds=1.0) as now:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", now.port))
            for _ in range(8):
                connection.sendall(
                    b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
                )
            eventually(lambda: now.server.server_state.connections)
            eventually(lambda: not now.server.server_state.connections)
        with now.client() as client:
            assert ask(client).status_code == 200


def test_a_connection_too_many_is_503(monkeypatch):
    monkeypatch.setattr(serve, "CONNECTIONS", 3)
    with running() as now:
        idle = [socket.create_connection(("127.0.0.1", now.port)) for _ in range(3)]
        eventually(lambda: len(now.server.server_state.connections) == 3)
        found = now.raw(b"GET /v1/model HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 503") and b'"error":"there are too many' in found
        assert b"retry-after: 1" in found.lower()
        for connection in idle:
            connection.close()
        eventually(lambda: not now.server.server_state.connections)
        with now.client() as client:
            assert ask(client).status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_harms_nobody(request_bytes):
    with running() as now:
        found = now.raw(request_bytes)
        assert found.split(b" ")[1:2] in ([b"400"], [b"501"], []), found[:100]
        with now.client() as client:
            assert ask(client).status_code == 200
            assert 'status="500"' not in client.get("/metrics").text


def test_pipelined_requests_are_answered_in_order():
    with running() as now:
        one = HEAD + b"Content-Length: " + str(len(QUESTION)).encode() + b"\r\n\r\n" + QUESTION
        two = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        found = now.raw(one * 3 + two)
        assert found.count(b"HTTP/1.1 200") == 4 and found.rstrip().endswith(b'{"status":"ok"}')

"""The process of the server: its address, its signals, and what it refuses to start with."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from mufin.code import ROOT
from mufin.errors import MufinError
from mufin.serving.web.limits import Settings
from tests.support.web import SECONDS, eventually, running


def started(*arguments: str, key: str | None = None) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("MUFIN_API_KEY", None)
    if key:
        environment["MUFIN_API_KEY"] = key
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.serve_fake", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )


@contextmanager
def process(folder, slow: float = 0.0, loading: float = 0.0, ready: bool = True):
    """(process, client) of a server whose first model is loaded."""
    server = started(str(folder), str(slow), "0", "127.0.0.1", str(loading))
    try:
        line = server.stdout.readline()
        assert line.startswith("mufin serve listens on http://127.0.0.1:"), server.stderr.read()
        url = line.split()[-1]
        with httpx.Client(base_url=url, timeout=SECONDS, trust_env=False) as client:
            if ready:
                eventually(lambda: client.get("/readyz").status_code == 200)
            yield server, client
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "name").write_text("first")
    return tmp_path


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/recommend", json={"uids": ["p1"], "k": 1})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_all_accepted_requests(folder, number):
    with process(folder, slow=0.5) as (server, client):
        with ThreadPoolExecutor(20) as pool:
            clients = [
                httpx.Client(base_url=client.base_url, timeout=SECONDS, trust_env=False)
                for _ in range(20)
            ]
            futures = [pool.submit(ask, each) for each in clients]
            waiting = "mufin_requests_under_way 21.0"
            eventually(lambda: waiting in client.get("/metrics").text)
            server.send_signal(number)
            assert [f.result().status_code for f in futures] == [200] * 20
        assert server.wait(SECONDS) == 0
        with pytest.raises(httpx.TransportError):
            client.get("/healthz")
        assert "Traceback" not in server.stderr.read()


def test_a_second_signal_waits_for_nothing(folder):
    with process(folder, slow=30) as (server, client):
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(ask, client)
            time.sleep(0.5)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert server.poll() is None
            server.send_signal(signal.SIGTERM)
            assert server.wait(5) is not None
            try:
                assert future.result().status_code == 500
            except httpx.TransportError:
                pass


def test_health_is_answered_while_the_model_loads(folder):
    with process(folder, loading=1.0, ready=False) as (server, client):
        assert client.get("/healthz").status_code == 200
        for response in (client.get("/readyz"), ask(client), client.get("/v1/model")):
            assert response.status_code == 503 and "load" in response.json()["error"]
            assert response.headers["retry-after"]
        eventually(lambda: client.get("/readyz").status_code == 200)
        assert ask(client).status_code == 200


def test_a_signal_while_the_model_loads_ends_it(folder):
    with process(folder, loading=60, ready=False) as (server, client):
        assert client.get("/healthz").status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0 and "Traceback" not in server.stderr.read()


def test_sighup_loads_the_folder_again(folder):
    with process(folder) as (server, client):
        (folder / "name").write_text("second")
        server.send_signal(signal.SIGHUP)
        eventually(lambda: ask(client).json()["model"] == "second")
        (folder / "name").unlink()
        server.send_signal(signal.SIGHUP)
        eventually(lambda: 'mufin_swaps_total{ok="no"} 1.0' in client.get("/metrics").text)
        assert ask(client).json()["model"] == "second" and client.get("/readyz").is_success
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0
        said = server.stderr.read()
        assert "run `dvc repro` there" in said and "Traceback" not in said


def test_a_first_model_that_does_not_load_ends_it_in_a_sentence(tmp_path):
    server = started(str(tmp_path), "0", "0")
    _, said = server.communicate(timeout=SECONDS)
    assert server.returncode == 1 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: ") and "run `dvc repro` there" in said


def test_a_host_that_others_reach_needs_a_key(folder):
    server = started(str(folder), "0", "0", "0.0.0.0")
    out, said = server.communicate(timeout=SECONDS)
    assert server.returncode == 1 and not out
    assert said.startswith("error: ") and "MUFIN_API_KEY" in said and said.count("\n") == 1
    server = started(str(folder), "0", "0", "0.0.0.0", key="s3cret")
    try:
        port = server.stdout.readline().rpartition(":")[2].strip()
        url = f"http://127.0.0.1:{port}/v1/model"
        assert httpx.get(url, trust_env=False).status_code == 401
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.7"])
def test_a_host_that_cannot_be_bound_is_a_sentence(folder, host):
    server = started(str(folder), "0", "0", host, key="s3cret")
    _, said = server.communicate(timeout=SECONDS)
    assert server.returncode == 1 and said.startswith("error: ") and said.count("\n") == 1


def test_a_port_that_is_taken_is_a_sentence(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = started(str(folder), "0", str(taken.getsockname()[1]))
        _, said = server.communicate(timeout=SECONDS)
    assert server.returncode == 1 and "cannot be bound" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "changes",
    [{"port": -1}, {"port": 65536}, {"seconds": 0}, {"seconds": float("nan")}, {"max_batch": 0}]
    + [{"max_queue": 10}, {"max_wait_ms": -1}, {"body_bytes": 0}],
)
def test_settings_that_make_no_sense_are_a_sentence(changes):
    with pytest.raises(MufinError, match=f"{next(iter(changes))} is "):
        Settings(**changes)


def test_readiness_ends_before_the_last_answer():
    """A load balancer sends no more while what was accepted is answered."""
    with running(drain_seconds=1.0) as now, now.client() as client:
        now.server.engine.draining = False
        now.service.blocked.clear()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(ask, client)
            assert now.service.entered.wait(SECONDS)
            now.engine.draining = True  # as `stop` does at once
            with now.client() as other:
                assert other.get("/readyz").status_code == 503
                assert "stopping" in other.get("/readyz").json()["error"]
                assert other.get("/healthz").status_code == 200
            now.service.blocked.set()
            assert future.result().status_code == 200

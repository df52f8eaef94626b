"""`mufin serve` as a process of its own, on a trained model: answers, kills, exchange of models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.soak import soak
from mufin.ranking.mix import Mix
from mufin.ranking.mix_file import save_mix
from mufin.serving.recommender import Recommender
from mufin.serving.store import ProductStore

SECONDS = 120
ENVIRONMENT = {"MUFIN_DEVICE": "cpu", "MUFIN_WORKERS": "1", "OMP_NUM_THREADS": "1"}


@contextmanager
def running(folder: Path, store: Path) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    """The server on a free port, ready, and a client for it; killed at the end."""
    command = [sys.executable, "-m", "mufin.cli", "serve", str(folder), "--port", "0"]
    command += ["--store", str(store)]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=SECONDS) as client:
            until(lambda: client.get("/readyz").status_code == 200)
            yield server, client
    finally:
        server.kill()
        server.wait(SECONDS)


def until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def ask(client: httpx.Client, **question) -> list[dict]:
    response = client.post("/v1/recommend", json=question)
    assert response.status_code == 200, response.text
    return response.json()["answers"]


def with_mix(finished: Path, home: Path, **mix) -> Path:
    """The same run with another models/mix.json."""
    (home / "models").mkdir(parents=True)
    (home / "params.yaml").write_text((finished / "params.yaml").read_text())
    (home / "data").symlink_to(finished / "data")
    for name in ("finetune", "index"):
        (home / "models" / name).symlink_to(finished / "models" / name)
    save_mix(Mix(**mix), home / "models/mix.json", home / "models/index")
    return home


def test_answers_over_http_are_those_of_the_recommender(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    served = Recommender.load(finished)
    with running(finished, tmp_path / "store.sqlite") as (server, client):
        for uid in served.model.uids[:20]:
            mine = served.recommend(uid, k=7, reasons=True)
            answers = ask(client, uids=[uid], k=7, reasons=True)
            assert [a["uid"] for a in answers] == [a.uid for a in mine]
            assert [a["score"] for a in answers] == pytest.approx([a.score for a in mine], abs=1e-5)
            assert [len(a["why"]) for a in answers] == [len(a.why) for a in mine]
        key = next(p for p in answers if p["pictures"])["pictures"][0]
        picture = client.get(key)
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.content == served.picture(key.rpartition("/")[2])
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0


def test_what_was_acknowledged_is_there_after_kill_9(finished, tmp_path):
    store = tmp_path / "store.sqlite"
    acknowledged: dict[str, str] = {}
    with running(finished, store) as (server, client):
        killer = threading.Timer(0.7, server.kill)
        killer.start()
        with pytest.raises(httpx.TransportError):
            for number in range(10_000):
                uid, title = f"n{number % 50}", f"red mug {number}"
                acknowledged.pop(uid, None)  # until it is acknowledged, either may be there
                response = client.put(f"/v1/products/{uid}", json={"title": title})
                assert response.status_code == 200, response.text
                acknowledged[uid] = title
    assert len(acknowledged) > 3
    with running(finished, store) as (server, client):
        for uid, title in acknowledged.items():
            assert client.get(f"/v1/products/{uid}").json()["title"] == title
            some = client.get("/v1/products", params={"limit": 2}).json()["products"]
            other = next(product["uid"] for product in some if product["uid"] != uid)
            assert ask(client, uids=[other], candidates=[uid])[0]["uid"] == uid


def test_two_models_are_exchanged_under_load(finished, tmp_path, monkeypatch):
    """Each answer is wholly of one of the models, and no request fails."""
    monkeypatch.setenv("MUFIN_DEVICE", "cpu")
    one = with_mix(finished, tmp_path / "one", beta=0.0)
    two = with_mix(finished, tmp_path / "two", beta=1.0)
    current = tmp_path / "current"
    current.symlink_to(one)
    uids = Recommender.load(one).model.uids[:10]
    expected = {}
    for home in (one, two):
        served = Recommender.load(home)
        of_model = {uid: [a.uid for a in served.recommend(uid, k=5)] for uid in uids}
        expected[served.model.id] = of_model
    assert len(expected) == 2
    seen, wrong, stop = set(), [], threading.Event()

    def load(address) -> None:
        with httpx.Client(base_url=address, timeout=SECONDS) as client:
            while not stop.is_set():
                for uid in uids:
                    response = client.post("/v1/recommend", json={"uids": [uid], "k": 5})
                    said = response.json()
                    got = [a["uid"] for a in said.get("answers", [])]
                    if response.status_code != 200 or got != expected[said["model"]][uid]:
                        wrong.append((response.status_code, said))
                    seen.add(said.get("model"))

    with running(current, tmp_path / "store.sqlite") as (server, client):
        threads = [threading.Thread(target=load, args=(client.base_url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for home in (two, one, two):
                before = client.get("/v1/model").json()["id"]
                current.unlink()
                current.symlink_to(home)
                server.send_signal(signal.SIGHUP)
                until(lambda before=before: client.get("/v1/model").json()["id"] != before)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not wrong and seen == set(expected)


def test_many_clients_get_right_answers_while_products_change(finished, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    figures = soak(finished, requests=300, clients=8)
    assert figures["wrong"] == 0, figures["first_wrong"]
    assert set(figures["statuses"]) <= {"200", "204", "404", "422", "503"}
    assert figures["requests"] >= 300 and figures["kinds"]["upsert"] > 5


def test_a_store_that_another_process_has_is_a_sentence(finished, tmp_path):
    store = tmp_path / "store.sqlite"
    command = [sys.executable, "-m", "mufin.cli", "serve", str(finished), "--port", "0"]
    with ProductStore(store):
        second = subprocess.run(
            [*command, "--store", str(store)],
            capture_output=True,
            text=True,
            env=os.environ | ENVIRONMENT,
        )
    assert second.returncode == 1 and second.stderr.startswith("error: ")
    assert second.stderr.count("\n") == 1

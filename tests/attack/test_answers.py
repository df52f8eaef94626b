"""Two hundred hostile answers: each is a picture or a counted reason, in time and in bounds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mufin.corpus import addresses, connections
from mufin.corpus.fetch import TOTAL, Fetcher
from mufin.corpus.reasons import PRIVATE, temporary
from tests.support.certificate import certificate
from tests.support.hostile_answers import Attack, attacks, serving_attacks
from tests.support.projects import ROOT, changed
from tests.support.servers import PICTURE, Handler, Server, limits, serving

TIMEOUT = 0.5  # seconds per step of a request
LATE = 20.0  # seconds beyond the deadline that a slow machine may need
GROWTH = 200  # MB that hostile answers may need beyond good ones


@pytest.fixture(scope="module")
def served() -> Iterator[list[Attack]]:
    found = attacks()
    with serving_attacks(found):
        yield found


def download(
    folder: Path, urls: list[str], max_failed: float, user_agent: str = "a test"
) -> subprocess.CompletedProcess:
    """The stage on a catalog with a product per URL, in a process of its own."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"ASIN": f"p{i}", "title": "", "images": [url], "also_buy": ["p0"], "category": []}
        for i, url in enumerate(urls)
    ]
    (folder / "catalog.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "source": "catalog",
        "location": "catalog.jsonl",
        "timeout": TIMEOUT,
        "max_bytes": 100_000,
        "retries": 0,
        "per_host": 64,
        "private_addresses": True,
        "max_failed": max_failed,
        "user_agent": user_agent,  # another one asks again for all that failed
    }
    dotted = {f"download.{name}": value for name, value in settings.items()}
    (folder / "params.yaml").write_text(changed(ROOT / "params.yaml", dotted))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MUFIN_SCRATCH": str(folder / "scratch"),
        "MUFIN_WORKERS": "4",  # 64 threads
        "REQUESTS_CA_BUNDLE": str(certificate()),
        "no_proxy": "*",
    }
    command = [sys.executable, "-m", "pipeline.download"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def ran(served, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run in which too many pictures fail, and a second one that allows it."""
    folder = tmp_path_factory.mktemp("shop")
    urls = [attack.url for attack in served]
    first = download(folder, urls, 0.25)
    assert first.returncode == 1 and not (folder / "data/raw").exists(), first.stderr
    said = first.stderr.splitlines()
    assert len(said) == 1 and "more than download.max_failed (0.25)" in said[0], said
    second = download(folder, urls, 1.0, "another test")
    assert second.returncode == 0, second.stderr
    return folder, second


def test_each_hostile_answer_is_a_picture_or_its_reason(served, ran):
    log = pq.read_table(ran[0] / "data/raw/image_log.parquet").to_pylist()
    reasons = {row["url"]: row["reason"] for row in log}
    wrong = {a.name: reasons[a.url] for a in served if reasons[a.url] not in a.outcomes}
    assert not wrong and len(reasons) == len(served) >= 150
    kept = pq.read_table(ran[0] / "data/raw/images")["bytes"].to_pylist()
    assert PICTURE in kept and all(len(picture) <= 100_000 for picture in kept)


def test_no_answer_holds_a_request_beyond_its_deadline(served, ran):
    spent = {attack.name: max(attack.spent) for attack in served if attack.spent}
    assert len(spent) == len(served)
    assert not {name: s for name, s in spent.items() if s > TOTAL * TIMEOUT + LATE}


def test_hostile_answers_take_little_memory(ran, tmp_path):
    with serving(Server()) as server:
        good = download(tmp_path / "good", [server.url(f"/pic/{i}.jpg") for i in range(99)], 0.0)
    assert good.returncode == 0 and not good.stderr, good.stderr
    peaks = [
        json.loads((folder / "metrics/runtime/download.json").read_text())["peak_memory_mb"]
        for folder in (tmp_path / "good", ran[0])
    ]
    assert peaks[1] - peaks[0] < GROWTH, peaks


def test_no_cookie_is_sent_back(served, ran):
    requests = [request.lower() for attack in served for request in attack.asked]
    assert len(requests) >= 2 * len(served) - 10 and not any(b"\r\ncookie:" in r for r in requests)


def test_the_loss_is_said_with_the_command_that_asks_again(served, ran):
    facts = json.loads((ran[0] / "metrics/download.json").read_text())
    lost = sum(facts["failed"].values())
    again = sum(count for reason, count in facts["failed"].items() if temporary(reason))
    assert 0 < again < lost
    loss, remedy = ran[1].stderr.splitlines()
    assert f"{lost} of {len(served)} image references gave no picture" in loss
    assert f"{again} of them failed for want of a network or a host: `dvc repro -f -s" in remedy
    assert list((ran[0] / "scratch/download").glob("*/fetched.log"))


# Addresses that are not public, where the server that redirects to them counts as public

V4 = ["127.0.0.2", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1"]
V4 += ["0.0.0.0", "192.0.0.8", "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"]
V4 += ["255.255.255.255", "192.0.2.1", "203.0.113.1", "192.88.99.1"]
V6 = ["::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"]
V6 += ["64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::808:808"]
V6 += ["2002:7f00:1::", "2002:808:808::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1"]
V6 += ["2001:db8::1", "2001::1", "100::1", "::ffff:0:127.0.0.1"]
NAMES = ["localhost", "2130706434", "0x7f000002", "0177.0.0.2", "127.2"]
TARGETS = [*V4, *(f"[{address}]" for address in V6), *NAMES]


class Redirect(Handler):
    """Answers the path `/<number>` with a redirect to that target."""

    def do_GET(self):
        host = TARGETS[int(self.path[1:])]
        self.answer(302, Location=f"http://{host}:{self.server.target}/pic/1.jpg")


@pytest.fixture
def accepted() -> Iterator[tuple[int, list]]:
    """A port of all loopback addresses, and the connections that were made to it."""
    made: list = []
    with socket.create_server(("127.0.0.2", 0)) as one:
        port = one.getsockname()[1]
        with socket.create_server(("127.0.0.1", port)) as two:
            for listener in (one, two):
                threading.Thread(target=_count, args=(listener, made), daemon=True).start()
            yield port, made


def _count(listener: socket.socket, made: list) -> None:
    try:
        while True:
            made.append(listener.accept()[1])
    except OSError:  # closed
        pass


@pytest.mark.parametrize("open_port", [True, False], ids=["open", "closed"])
def test_no_redirect_connects_to_an_address_that_is_not_public(accepted, monkeypatch, open_port):
    port, made = accepted
    real, connected = addresses.public, []
    monkeypatch.setattr(addresses, "public", lambda a: a == "127.0.0.9" or real(a))
    connect = connections._connected

    def spied(info, now):
        connected.append(info[4][0])
        return connect(info, now)

    monkeypatch.setattr(connections, "_connected", spied)
    server = Server(Redirect, "127.0.0.9")
    server.target = port if open_port else 1
    with serving(server):
        fetcher = Fetcher(limits(private_addresses=False, retries=0))
        got = {target: fetcher.fetch(server.url(f"/{i}")) for i, target in enumerate(TARGETS)}
    assert got == dict.fromkeys(TARGETS, (b"", PRIVATE))
    assert set(connected) == {"127.0.0.9"} and not made

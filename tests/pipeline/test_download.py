"""The stage download: killed, interrupted, without a network, and what it leaves in scratch."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mufin.corpus import connections
from mufin.corpus.hosts import FAILURES, LOST
from mufin.corpus.image_store import key_of, stored_pictures
from mufin.corpus.reasons import GIVEN_UP
from mufin.errors import MufinError
from pipeline import download
from tests.support.projects import ROOT, changed
from tests.support.servers import PICTURE, Handler, Server, jpeg, serving

RAW = ["contents.json", "image_log.parquet", "images/part-00000.parquet", "products.parquet"]


@pytest.fixture
def server():
    with serving(Server()) as server:
        yield server


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setenv("MUFIN_WORKERS", "1")
    monkeypatch.delenv("MUFIN_SCRATCH", raising=False)


def catalog_of(images: list[list[str]]) -> str:
    rows = [
        {
            "ASIN": f"p{i}",
            "title": f"thing {i}",
            "images": urls,
            "also_buy": [f"p{i - 1}"],
            "category": [],
        }
        for i, urls in enumerate(images)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def shop_of(folder: Path, images: list[list[str]], **settings) -> None:
    """A folder to run in: a catalog with a product per list of references, in this order."""
    folder.mkdir(exist_ok=True)
    (folder / "catalog.jsonl").write_text(catalog_of(images))
    settings = {"source": "catalog", "private_addresses": True, "retries": 1} | settings
    settings["location"] = "catalog.jsonl"
    dotted = {f"download.{name}": value for name, value in settings.items()}
    (folder / "params.yaml").write_text(changed(ROOT / "params.yaml", dotted))


def run(folder: Path) -> None:
    """The stage in this process, in the folder of a shop."""
    with contextlib.chdir(folder):
        download.main()


def output_of(folder: Path) -> dict[str, bytes]:
    """The content of each file that the stage publishes."""
    raw = folder / "data/raw"
    files = (p for p in sorted(raw.rglob("*")) if p.is_file())
    return {p.relative_to(raw).as_posix(): p.read_bytes() for p in files}


def start(folder: Path) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MUFIN_WORKERS": "1",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("MUFIN_SCRATCH", None)
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.download"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_download_resumes_to_the_same_bytes(server, tmp_path, monkeypatch):
    count, server.slow = 30, 60.0
    urls = [[server.url(f"/pic/{i}.jpg")] for i in range(count)]
    urls[count // 2] += [server.url("/pic/slow.jpg"), server.url("/404/a.jpg")]
    shop_of(tmp_path / "killed", urls, timeout=30.0)
    first = start(tmp_path / "killed")
    log, end = tmp_path / "killed/scratch/download", time.monotonic() + 60
    while (
        sum(
            p.stat().st_size > 0 and p.read_bytes().count(b'"url"')
            for p in log.glob("*/fetched.log")
        )
        < count + 1
    ):
        assert first.poll() is None and time.monotonic() < end, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (tmp_path / "killed/data/raw").exists()
    server.slow, before = 0.0, Counter(server.asked)
    second = start(tmp_path / "killed")
    output = second.communicate(timeout=60)[0]
    assert second.returncode == 0, output
    assert set(server.asked - before) == {"/pic/slow.jpg"}  # not what answered HTTP 404
    shop_of(tmp_path / "unbroken", urls, timeout=30.0)
    run(tmp_path / "unbroken")
    assert list(output_of(tmp_path / "killed")) == [*RAW, "source.json"]
    assert output_of(tmp_path / "killed") == output_of(tmp_path / "unbroken")
    for folder in (tmp_path / "killed", tmp_path / "unbroken"):
        assert not list(folder.glob("scratch/download/*"))  # no second copy of the pictures


def test_kept_pictures_are_not_fetched_again(server, tmp_path, monkeypatch):
    """With a catalog that changes every day, only new pictures are fetched."""
    urls = [[server.url(f"/pic/{i}.jpg")] for i in range(6)]
    shop_of(tmp_path / "shop", urls[:4])
    monkeypatch.setenv("MUFIN_KEEP_FETCHED", "1")
    run(tmp_path / "shop")
    (tmp_path / "shop/catalog.jsonl").write_text(catalog_of(urls))
    before = Counter(server.asked)
    run(tmp_path / "shop")
    assert set(server.asked - before) == {"/pic/4.jpg", "/pic/5.jpg"}
    monkeypatch.delenv("MUFIN_KEEP_FETCHED")
    run(tmp_path / "shop")
    assert server.asked - before == Counter({"/pic/4.jpg": 1, "/pic/5.jpg": 1})
    assert not list((tmp_path / "shop").glob("scratch/download/*"))
    shop_of(tmp_path / "fresh", urls)
    run(tmp_path / "fresh")
    assert output_of(tmp_path / "shop") == output_of(tmp_path / "fresh")


def test_after_an_outage_only_what_it_cost_is_asked_again(tmp_path, monkeypatch, capsys):
    """HTTP 404, 410 and what is no picture are remembered, as long as the pictures are kept."""
    shop, up = tmp_path / "shop", ["/pic/1.jpg", "/pic/2.jpg"]
    with serving(Server(Outage)) as server:
        lasting = ["/404/a.jpg", "/410/a.jpg", "/text", "/announced", "/circle/a"]
        passing = ["/503/a.jpg", "/403/a.jpg", "/html", "/stalls/a.jpg"]
        urls = [[server.url(path)] for path in [*up, *lasting, *passing]]
        shop_of(shop, urls, max_failed=1.0, retries=0, timeout=0.5)
        run(shop)
        assert "2 of them failed for want of a network or a host" in capsys.readouterr().err
        before, server.over_now = Counter(server.asked), True
        run(shop)
        assert server.asked - before == Counter(passing)
        failed = json.loads((shop / "metrics/download.json").read_text())["failed"]
        assert sum(failed.values()) == len(lasting)
        assert not list((shop / "scratch/download").iterdir())  # nothing is to be had any more
        fresh = Counter(server.asked)
        run(shop)
        assert set(server.asked - fresh) >= {*up, *lasting[:4], *passing}


class Outage(Handler):
    """Two hosts in one: some paths fail until `over_now` is set on the server."""

    def _403(self, n):
        if getattr(self.server, "over_now", False):
            self.answer(body=PICTURE)
        else:
            self.answer(int(self.path[1:4]))

    _503 = _403

    def _410(self, n):
        self.answer(410)

    def _html(self, n):
        if getattr(self.server, "over_now", False):
            self.answer(body=PICTURE)
        else:
            super()._html(n)

    def _stalls(self, n):
        if getattr(self.server, "over_now", False):
            self.answer(body=PICTURE)
        else:
            super()._stalls(n)


def test_other_settings_ask_again_for_what_failed(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MUFIN_KEEP_FETCHED", "1")
    shop, urls = tmp_path / "shop", [[server.url(f"/{p}/1.jpg")] for p in ("404", "pic")]
    for settings, paths in (
        ({}, {"/404/1.jpg", "/pic/1.jpg"}),
        ({}, set()),
        ({"user_agent": "a shop"}, {"/404/1.jpg"}),
        ({"user_agent": "a shop", "timeout": 9.0}, set()),
    ):
        before = Counter(server.asked)
        shop_of(shop, urls, max_failed=1.0, **settings)
        run(shop)
        assert set(server.asked - before) == paths


def test_too_many_failures_name_a_reference_and_the_folder(tmp_path):
    shop = tmp_path / "shop"
    with serving(Server()) as server:
        long = server.url("/404/" + "x" * 200 + "/end.jpg")
        urls = [[long], [server.url("/404/b")], [server.url("/text")], [server.url("/html")]]
        shop_of(shop, urls)
        with pytest.raises(MufinError) as error:
            run(shop)
        text = str(error.value)
        assert text.startswith(
            "4 of 4 image references gave no picture (HTTP 404: 2, such as 'http"
        )
        assert "xxx/end.jpg', not a picture: 1), more than" in text and text.count("such as") == 1
        (kept,) = (shop / "scratch/download").iterdir()
        assert text.endswith(
            f"or raise it; remove scratch/download/{kept.name} to ask for all again"
        )
        assert len(text) <= 300


def test_ctrl_c_ends_a_download_from_a_silent_host(server, tmp_path):
    server.slow = 100.0
    urls = [[server.url(f"/pic/{i}.jpg")] for i in range(99)]
    shop_of(tmp_path / "shop", [[server.url("/pic/slow.jpg")], *urls], timeout=100.0)
    process = start(tmp_path / "shop")
    end = time.monotonic() + 60
    while server.asked.total() < 100:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=10)[0]
    assert process.returncode and output.count("\n") == 1 and "run the same command" in output
    assert sorted(p.name for p in (tmp_path / "shop/data").iterdir()) == []


# Hosts and networks that are gone


@pytest.fixture
def attempts(monkeypatch) -> Counter:
    """Connections that were tried, by port."""
    made: Counter = Counter()
    connect = connections._connected

    def counted(info, now):
        made[info[4][1]] += 1
        return connect(info, now)

    monkeypatch.setattr(connections, "_connected", counted)
    return made


def dead_ports(count: int) -> list[int]:
    """Ports of servers that are gone. Ask for them while the servers of the test are up: one that
    starts later may get such a port.
    """
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(Server()).server_address[1] for _ in range(count)]


@contextlib.contextmanager
def again(ports: list[int]) -> Iterator[None]:
    """The servers of these ports are back."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            stack.enter_context(serving(Server(port=port)))
        yield


def pictures(ports: list[int], count: int) -> list[list[str]]:
    """`count` references per port, all distinct, those of a port one after the other."""
    return [[f"http://127.0.0.1:{port}/pic/{i}.jpg"] for port in ports for i in range(count)]


def unbroken(folder: Path, urls: list[list[str]], **settings) -> dict[str, bytes]:
    shop_of(folder, urls, **settings)
    run(folder)
    return output_of(folder)


def test_a_lost_network_ends_the_stage_and_it_continues(tmp_path, attempts):
    ports, shop = dead_ports(4), tmp_path / "shop"
    urls = pictures(ports, 150)
    shop_of(shop, urls)
    with pytest.raises(MufinError, match="the network is lost; what was fetched is kept: run the"):
        run(shop)
    assert attempts.total() < 200 and not (shop / "data/raw").exists()
    with again(ports):
        run(shop)
        assert output_of(shop) == unbroken(tmp_path / "unbroken", urls)
    assert json.loads((shop / "data/raw/source.json").read_text())["failed"] == {}
    assert not list((shop / "scratch/download").iterdir())


def test_a_network_lost_midway_keeps_what_was_fetched(tmp_path, attempts):
    shop, urls = tmp_path / "shop", []
    with Server() as server, serving(server):
        port = server.server_address[1]
        urls = pictures([port], 800)
        answer = server.process_request

        def gone(request, address):
            if server.asked.total() >= 300:
                server.socket.close()
            answer(request, address)

        server.process_request = gone
        shop_of(shop, urls)
        with pytest.raises(MufinError, match="the network is lost"):
            run(shop)
    before = attempts.total()
    assert before < 500
    with serving(Server(port=port)) as server:
        run(shop)
        assert server.asked.total() <= 500
        assert output_of(shop) == unbroken(tmp_path / "unbroken", urls)


def test_a_dead_host_costs_few_requests_and_is_asked_again(tmp_path, attempts, capsys):
    shop = tmp_path / "shop"
    with serving(Server()) as server:
        (dead,), alive = dead_ports(1), server.server_address[1]
        urls = pictures([dead, alive], 200)
        shop_of(shop, urls, max_failed=0.6)
        run(shop)
        facts = json.loads((shop / "metrics/download.json").read_text())
        failed = facts["failed"]
        assert set(failed) == {GIVEN_UP, "connection failed"} and sum(failed.values()) == 200
        assert attempts[dead] < 100 and failed["connection failed"] <= 16 + FAILURES
        loss, remedy = capsys.readouterr().err.splitlines()
        assert re.search(
            r"200 of 400 image references gave no picture \(its host failed too often: \d+, such "
            rf"as 'http://127.0.0.1:{dead}/pic/\d+.jpg', connection failed: \d+, such as ",
            loss,
        )
        assert re.search("200 of them failed for want of .* `dvc repro -f -s download`", remedy)
        (kept,) = (shop / "scratch/download").iterdir()
        assert f"scratch/download/{kept.name} until then" in remedy
        before = server.asked.total()
        with again([dead]):
            run(shop)
            assert server.asked.total() == before  # only what failed is asked again
            assert output_of(shop) == unbroken(tmp_path / "unbroken", urls, max_failed=0.6)
    assert not capsys.readouterr().err and not kept.exists()


def test_an_unreachable_part_of_the_catalog_does_not_end_the_run(tmp_path, attempts):
    """More dead hosts in a row than a lost network would need, before the first live one."""
    with serving(Server()) as server:
        ports = dead_ports(LOST // 5)
        urls = pictures([*ports, server.server_address[1]], 10)
        shop_of(tmp_path / "shop", urls, max_failed=0.95)
        run(tmp_path / "shop")
    facts = json.loads((tmp_path / "shop/metrics/download.json").read_text())
    assert facts["pictures"] == 10 and sum(facts["failed"].values()) == len(urls) - 10


def test_a_host_that_recovers_gives_its_pictures_in_the_same_run(server, tmp_path, monkeypatch):
    """Its references come first; meanwhile it is given up, and asked again at the end."""
    shop, connect = tmp_path / "shop", connections._connected
    with serving(Server()) as alive:

        def late(info, now):
            if info[4][1] == server.server_address[1] and alive.asked.total() < 300:
                raise ConnectionRefusedError
            return connect(info, now)

        monkeypatch.setattr(connections, "_connected", late)
        urls = pictures([server.server_address[1], alive.server_address[1]], 300)
        shop_of(shop, urls, retries=0, max_failed=0.5)
        run(shop)
    failed = json.loads((shop / "metrics/download.json").read_text())["failed"]
    assert set(failed) == {"connection failed"} and failed["connection failed"] < 20


# How a server is asked


class Noting(Handler):
    """Keeps the headers and the raw path of each request."""

    def do_GET(self):
        self.server.asked[self.path] += 1
        self.server.agents.add(self.headers["User-Agent"])
        if self.path == "/to":
            self.answer(302, Location="/umgezogen/\u00c3\u00bc.jpg")  # UTF-8, as servers send it
        else:
            self.answer(body=PICTURE)


@pytest.fixture
def noting():
    server = Server(Noting)
    server.agents = set()
    with serving(server):
        yield server


def test_requests_name_themselves_as_the_settings_say(noting, tmp_path):
    shop_of(tmp_path / "shop", [[noting.url("/a.jpg")], []], user_agent="Shop/1.0 (+mail@shop)")
    run(tmp_path / "shop")
    assert noting.agents == {"Shop/1.0 (+mail@shop)"}


def test_urls_are_asked_for_as_browsers_write_them(noting, tmp_path):
    paths = ["/a b.jpg", "/\u00fc/\u5199.jpg?q=\u00e4 b", "/c%20d.jpg", "/to", "/50%.jpg"]
    urls = [noting.url(path) for path in paths]
    urls += [f"  {noting.url('/e.jpg')}\n", noting.url("/f\ng.jpg"), noting.url("/[h].jpg#end")]
    shop_of(tmp_path / "shop", [[url] for url in urls])
    run(tmp_path / "shop")
    assert json.loads((tmp_path / "shop/metrics/download.json").read_text())["failed"] == {}
    assert set(noting.asked) == {
        "/a%20b.jpg",
        "/%C3%BC/%E5%86%99.jpg?q=%C3%A4%20b",
        "/c%20d.jpg",
        "/to",
        "/umgezogen/%C3%BC.jpg",
        "/50%25.jpg",
        "/e.jpg",
        "/fg.jpg",
        "/%5Bh%5D.jpg",
    }


# Images in the catalog itself


def data_url(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def test_images_in_the_catalog_are_stored_like_fetched_ones(server, tmp_path, capsys):
    shop = tmp_path / "shop"
    twice, large = data_url(jpeg(1)), data_url(jpeg(2) + bytes(3000))
    images = [[twice], [server.url("/pic/3.jpg"), twice], [large], [data_url(b"a title")]]
    shop_of(shop, images, max_failed=1.0, max_bytes=2000)
    run(shop)
    facts = json.loads((shop / "metrics/download.json").read_text())
    assert facts["pictures"] == 2 and facts["references"] == 4
    assert facts["failed"] == {"too many bytes": 1, "not a picture": 1}
    log = {
        row["url"]: row for row in pq.read_table(shop / "data/raw/image_log.parquet").to_pylist()
    }
    assert log[f"sha256:{key_of(jpeg(1))}"]["key"] == key_of(jpeg(1))
    stored = stored_pictures(shop / "data/raw/images", {key_of(jpeg(1)), key_of(jpeg(3))})
    assert set(stored.values()) == {jpeg(1), jpeg(3)}
    assert "too many bytes: 1, such as 'sha256:" in capsys.readouterr().err
    assert sorted(p.name for p in (shop / "data").iterdir()) == ["raw"]
    before = output_of(shop)
    run(shop)
    assert output_of(shop) == before


def test_a_path_that_looks_like_a_kept_image_is_none(tmp_path):
    shop = tmp_path / "shop"
    shop_of(shop, [["sha256:" + "0" * 32], ["sha256:no"], ["sha256:"]], max_failed=1.0)
    run(shop)
    failed = json.loads((shop / "metrics/download.json").read_text())["failed"]
    assert failed == {"scheme sha256 is not fetched": 3}


# What is left in scratch


def test_lost_references_that_stay_lost_keep_nothing(server, tmp_path, capsys):
    lost = server.url("/404")
    shop_of(tmp_path / "shop", [[server.url("/pic/1.jpg")], [lost]], max_failed=0.5)
    run(tmp_path / "shop")
    assert capsys.readouterr().err == (
        f"download: 1 of 2 image references gave no picture (HTTP 404: 1, such as '{lost}')\n"
    )
    facts = json.loads((tmp_path / "shop/metrics/download.json").read_text())
    assert facts["failed_examples"] == {"HTTP 404": f"'{lost}'"}
    assert not list((tmp_path / "shop/scratch/download").iterdir())


def test_another_download_that_did_not_end_is_kept_and_named(server, tmp_path, capsys):
    other = tmp_path / "shop/scratch/download/0123456789abcdef"
    shop_of(tmp_path / "shop", [[server.url("/pic/1.jpg")], []])
    other.mkdir(parents=True)
    (other / "fetched.log").write_bytes(bytes(3 << 20))
    run(tmp_path / "shop")
    assert "also holds other downloads that did not end (3 MB)" in capsys.readouterr().err
    assert list(other.parent.iterdir()) == [other]

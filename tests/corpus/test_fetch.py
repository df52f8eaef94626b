"""Fetching from servers that answer badly."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url

from mufin.corpus import connections, fetch, hosts
from mufin.corpus.fetch import Fetcher
from mufin.corpus.fetch_threads import fetch_all
from tests.support.servers import PICTURE, Handler, Server, jpeg, limits, serving


@pytest.fixture
def server():
    with serving(Server()) as server:
        yield server


@pytest.fixture
def sleeps(monkeypatch) -> list[float]:
    """The waits that were asked for. The fetcher's clock advances by them; nothing waits."""
    asked: list[float] = []

    class Clock:
        sleep, monotonic = (
            staticmethod(asked.append),
            staticmethod(lambda: time.monotonic() + sum(asked)),
        )

    monkeypatch.setattr(fetch, "time", Clock)
    monkeypatch.setattr(hosts, "time", Clock)
    return asked


def results(*args) -> list[tuple[str, bytes, str]]:
    """What `fetch_all` yields, as one list."""
    return [result for done in fetch_all(*args) for result in done]


@pytest.mark.parametrize(
    "path, content, reason, asked",
    [
        ("/pic/1.jpg", jpeg(1), "", 1),
        ("/to?/busy", PICTURE, "", 1),
        ("/wrong-type", PICTURE, "", 1),
        ("/wrong-length", PICTURE, "", 1),
        # begins like a picture; the stage precompute finds that the rest is missing
        ("/truncated", jpeg(side=200)[:700], "", 1),
        ("/429?7", PICTURE, "", 2),
        ("/500-once", PICTURE, "", 2),
        ("/drops-once", PICTURE, "", 2),
        ("/500", b"", "HTTP 500", 3),
        ("/stalls", b"", "timed out", 3),
        ("/stalls-in-body", b"", "timed out", 3),
        ("/drops", b"", "connection failed", 3),
        ("/drops-in-body", b"", "connection failed", 3),
        ("/404", b"", "HTTP 404", 1),
        ("/403", b"", "HTTP 403", 1),
        ("/html", b"", "HTML instead of a picture", 1),
        ("/text", b"", "not a picture", 1),
        ("/empty", b"", "empty", 1),
        ("/endless", b"", "too many bytes", 1),
        ("/announced", b"", "too many bytes", 1),
        ("/to?file:///etc/hostname", b"", "redirect to another scheme", 1),
        ("/to?ftp://127.0.0.1/a.jpg", b"", "redirect to another scheme", 1),
        ("/to?http://[", b"", "not a URL", 1),
    ],
)
def test_an_answer_is_bytes_or_one_reason(server, sleeps, path, content, reason, asked):
    bounds = limits(timeout=0.25) if "stalls" in path else limits()
    assert Fetcher(bounds).fetch(server.url(path)) == (content, reason)
    assert server.asked[path] == asked and len(sleeps) == asked - 1


def test_redirects_in_a_circle_end_after_max_redirects(server, sleeps):
    assert Fetcher(limits()).fetch(server.url("/circle/a")) == (b"", "too many redirects")
    assert server.asked.total() == 4 and not sleeps


def test_a_slow_body_ends_after_ten_times_the_timeout(server, sleeps):
    start = time.monotonic()
    assert Fetcher(limits(timeout=0.06, retries=0)).fetch(server.url("/drips")) == (
        b"",
        "timed out",
    )
    assert 0.5 < time.monotonic() - start < 10


def test_an_unreachable_host_is_a_failed_connection(sleeps):
    with Server() as closed:
        url = closed.url("/pic/1.jpg")
    assert Fetcher(limits(retries=1)).fetch(url) == (b"", "connection failed")
    assert len(sleeps) == 1


@pytest.mark.parametrize(
    "path, low, high",
    [
        ("/429?7", 7, 7),
        ("/429?86400", 60, 60),
        ("/429?Wed, 21 Oct 2037 07:28:00 GMT", 60, 60),
        ("/429?soon", 60, 60),
        ("/429?Wed, 21 Oct 2015 07:28:00 GMT", 0.25, 0.75),
        ("/500-once", 0.25, 0.75),
    ],
)
def test_the_wait_is_as_asked_up_to_a_minute(server, sleeps, path, low, high):
    assert Fetcher(limits()).fetch(server.url(path)) == (PICTURE, "")
    assert len(sleeps) == 1 and low <= sleeps[0] <= high


def test_only_the_host_that_asks_for_a_pause_pauses(server):
    other = server.url("/busy?other").replace("127.0.0.1", "localhost")
    references = [server.url(path) for path in ("/429?2", "/busy?1", "/busy?2")] + [other]

    def in_turn():
        for reference in references:
            yield reference
            while not server.times:
                time.sleep(0.01)

    got = results(in_turn(), Fetcher(limits(per_host=1)), 4)
    assert sorted(reference for reference, content, _ in got if content == PICTURE) == sorted(
        references
    )
    waits = {path: at - server.times[0][1] for path, at in server.times[1:]}
    assert waits.pop("/busy?other") < 1.9 and len(waits) == 3 and min(waits.values()) >= 1.95


def test_a_host_that_always_asks_to_wait_is_dropped(server, sleeps, monkeypatch):
    monkeypatch.setattr(Handler, "_429", lambda self, n: self.answer(429, Retry_After="60"))
    fetcher = Fetcher(limits())
    reasons = [fetcher.fetch(server.url(f"/429?{i}"))[1] for i in range(6)]
    assert (
        reasons == ["HTTP 429"] * 3 + ["the host asks to wait again and again"] * 3
        and sum(sleeps) < 800
    )


def test_backoff_doubles_with_each_try(server, sleeps):
    Fetcher(limits(retries=4)).fetch(server.url("/500"))
    assert [0.25 * 2**i <= s <= 0.75 * 2**i for i, s in enumerate(sleeps)] == [True] * 4


def test_at_most_per_host_requests_run_at_once(server):
    urls = [server.url(f"/busy?{i}") for i in range(24)]
    # the same host, written in another way
    urls[1::2] = [url.replace("//", "//user@", 1) for url in urls[1::2]]
    got = results(urls, Fetcher(limits(per_host=3, timeout=30.0)), 12)
    assert sorted(r for r, _, _ in got) == sorted(urls) and all(
        content == PICTURE for _, content, _ in got
    )
    assert 2 <= server.most <= 3


def test_private_addresses_see_no_request_unless_allowed(server, sleeps):
    port = server.server_address[1]
    for url in (
        server.url("/pic/1.jpg"),
        f"http://localhost:{port}/pic/1.jpg",
        f"http://0.0.0.0:{port}/pic/1.jpg",
        f"http://2130706433:{port}/pic/1.jpg",
    ):
        assert Fetcher(limits(private_addresses=False)).fetch(url) == (
            b"",
            "private or loopback address",
        )
    assert not server.asked and not sleeps
    assert Fetcher(limits()).fetch(server.url("/pic/1.jpg")) == (jpeg(1), "")


def test_a_redirect_to_a_private_address_is_refused(server, sleeps, monkeypatch):
    fetcher, get = Fetcher(limits(private_addresses=False)), Fetcher._get

    def first_is_public(self, url, *rest):
        return (
            (server.url("/pic/1.jpg"), b"")
            if url == "http://shop.example/a.jpg"
            else get(self, url, *rest)
        )

    monkeypatch.setattr(Fetcher, "_get", first_is_public)
    assert fetcher.fetch("http://shop.example/a.jpg") == (b"", "private or loopback address")
    assert not server.asked


def test_no_proxy_is_used_where_private_addresses_are_refused(server, sleeps, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    Fetcher(limits(private_addresses=False, retries=0)).fetch("http://127.0.0.1:1/a.jpg")
    assert not server.asked


@pytest.fixture
def shop(tmp_path) -> Path:
    folder = tmp_path / "shop"
    (folder / "img").mkdir(parents=True)
    (folder / "img/a b.jpg").write_bytes(PICTURE)
    (folder / "img/big.jpg").write_bytes(PICTURE + bytes(200_000))
    (tmp_path / "secret.jpg").write_bytes(PICTURE)
    (folder / "img/link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "img/inside.jpg").symlink_to(folder / "img/a b.jpg")
    (folder / "img/round.jpg").symlink_to(folder / "img/round.jpg")
    return folder


@pytest.mark.parametrize(
    "reference, reason",
    [
        ("img/a b.jpg", ""),
        ("./img/../img/a b.jpg", ""),
        ("img/inside.jpg", ""),
        ("../secret.jpg", "path outside the catalog's folder"),
        ("img/../../secret.jpg", "path outside the catalog's folder"),
        ("/etc/hostname", "path outside the catalog's folder"),
        ("img/link.jpg", "path outside the catalog's folder"),
        ("file:///etc/hostname", "path outside the catalog's folder"),
        ("img/none.jpg", "no such file"),
        ("img", "no such file"),
        ("img/round.jpg", "no such file"),
        ("", "no such file"),
        ("img/a\0.jpg", "not a URL"),
        ("img/big.jpg", "too many bytes"),
        ("ftp://127.0.0.1/a.jpg", "scheme ftp is not fetched"),
        ("data:image/png;base64,AA", "scheme data is not fetched"),
        ("http://", "redirect to another scheme"),
        ("http://[", "not a URL"),
        ("http://a:99999999/", "not a URL"),
    ],
)
def test_only_files_inside_the_catalogs_folder_are_read(shop, reference, reason):
    assert Fetcher(limits(), shop).fetch(reference) == (b"" if reason else PICTURE, reason)


def test_a_file_url_is_unescaped_inside_the_folder(shop):
    assert Fetcher(limits(), shop).fetch((shop / "img/a b.jpg").as_uri()) == (PICTURE, "")
    assert Fetcher(limits(), shop).fetch((shop.parent / "secret.jpg").as_uri()) == (
        b"",
        "path outside the catalog's folder",
    )


def test_a_source_of_urls_reads_no_files(shop):
    for reference in ("img/a b.jpg", (shop / "img/a b.jpg").as_uri()):
        assert Fetcher(limits(), None).fetch(reference) == (b"", "path where a URL is needed")


NETLOC = r"[a-c0-2A.:@%_-]{0,9}"


def place(url: str) -> tuple[str, int] | None:
    try:
        return fetch.place_of(url)
    except ValueError:
        return None


@settings(max_examples=400, deadline=None)
@given(st.from_regex(rf"(http|https|HTTP)://{NETLOC}[/?#]?[a-c:@/\t.%?#]{{0,5}}", fullmatch=True))
def test_a_request_counts_for_the_host_that_is_asked(url):
    found = place(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "PLAIN", re.compile("(?!)"))
        assert found == place(url)  # as urlsplit finds it
    with contextlib.suppress(requests.RequestException):
        if direct := connections._plain(fetch.url_of(url)):
            asked = parse_url(direct[1])
            assert (asked.host, asked.port or fetch.PORTS[asked.scheme]) == found

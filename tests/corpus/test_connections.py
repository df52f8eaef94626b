"""One deadline and bounded bytes per request, whatever the phase and however it is connected."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from mufin.corpus import fetch
from mufin.corpus.fetch import Fetcher
from mufin.errors import MufinError
from tests.support.certificate import certificate
from tests.support.hostile_answers import (
    CHUNKED,
    GAP,
    LENGTH,
    OK,
    PICTURE,
    WHOLE,
    Answer,
    Attack,
    chunks,
    drip,
    endless,
    once,
    serving_attacks,
    stall,
)
from tests.support.servers import Handler, Server, jpeg, limits, serving

FAST = limits(timeout=0.2, retries=0)  # a request ends after 2 s


@contextlib.contextmanager
def answering(answer: Answer, **settings) -> Iterator[Attack]:
    attack = Attack("", answer, set(), **settings)
    with serving_attacks([attack]):
        yield attack


# Whole files

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "answer, reason",
    [
        (drip(OK), "timed out"),
        (drip(b"X: y\r\n", OK), "timed out"),
        (drip(INTERIM), "timed out"),
        (drip(b"0", CHUNKED), "timed out"),
        (drip(b"0", OK + LENGTH % 5000), "timed out"),
        (drip(b"X: y\r\n", CHUNKED + chunks(PICTURE) + b"0\r\n"), "timed out"),
        (stall(OK + LENGTH % 5000 + PICTURE), "timed out"),
        (endless(INTERIM), "too many bytes"),
        (endless(b"X: y\r\n", CHUNKED + chunks(PICTURE) + b"0\r\n"), "too many bytes"),
    ],
    ids=["status", "headers", "100", "chunk", "body", "trailers", "stalls", "100s", "trailers 2"],
)
def test_a_whole_file_ends_in_time_in_every_phase(tmp_path, answer, reason):
    with answering(answer) as attack:
        start = time.monotonic()
        with pytest.raises(MufinError, match=rf"cannot be fetched \({reason}\)"):
            Fetcher(FAST).save(attack.url, tmp_path / "file")
        assert time.monotonic() - start < 20
    assert not (tmp_path / "file").exists()


def test_a_large_file_may_take_longer_than_the_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "SLOWEST", 50_000)  # bytes per 2 s
    content = bytes(range(256)) * 1000

    def slowly(send) -> bool:
        send(OK + LENGTH % len(content))
        for start in range(0, len(content), 2500):
            time.sleep(GAP)
            send(content[start : start + 2500])
        return False

    with answering(slowly) as attack:
        start = time.monotonic()
        saved = Fetcher(FAST).save(attack.url, tmp_path / "file")
        assert saved.read_bytes() == content and time.monotonic() - start > 2.0


# Connections


class KeepAlive(Handler):
    """Keeps its connections open, and counts them."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.asked["connections"] += 1


def test_a_reused_connection_has_a_deadline_per_request():
    with serving(Server(KeepAlive)) as server:
        fetcher, start = Fetcher(FAST), time.monotonic()
        while time.monotonic() - start < 2.5:  # longer than the deadline of one request
            assert fetcher.fetch(server.url("/pic/1.jpg")) == (jpeg(1), "")
            time.sleep(0.1)
        assert fetcher.fetch(server.url("/drips")) == (b"", "timed out")
        assert server.asked["connections"] == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_deadline_holds_through_a_proxy(monkeypatch, scheme):
    """A proxy gets the whole request for http, and CONNECT for https."""
    for answer, reason in ((drip(OK), "timed out"), (endless(INTERIM), "too many bytes")):
        with answering(answer) as proxy:
            monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
            monkeypatch.delenv("no_proxy", raising=False)
            start = time.monotonic()
            got = Fetcher(FAST).fetch(f"{scheme}://shop.example/a.jpg")
            assert got[1] in {reason, "connection failed"} and got[0] == b"" and proxy.asked
            assert time.monotonic() - start < 20


def test_a_picture_comes_through_a_proxy(monkeypatch):
    with answering(once(WHOLE)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert Fetcher(FAST).fetch("http://shop.example/a.jpg") == (PICTURE, "")
        assert proxy.asked[0].startswith(b"GET http://shop.example/a.jpg ")


def test_a_socks_proxy_is_named_in_a_sentence(monkeypatch):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(
        MufinError, match="names the proxy 127.0.0.1, a SOCKS proxy; set http_proxy"
    ):
        Fetcher(FAST).fetch("http://shop.example/a.jpg")


def test_a_picture_comes_over_tls_and_only_with_a_trusted_certificate(monkeypatch):
    bounds = limits(retries=0)
    with answering(once(WHOLE), tls=True) as attack:
        assert Fetcher(bounds).fetch(attack.url) == (b"", "connection failed")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate()))
        assert Fetcher(bounds).fetch(attack.url) == (PICTURE, "")


# What an answer may leave in memory


def peak(url: str, times: int = 1) -> float:
    """MB that `times` fetches of a URL need at most."""
    fetcher = Fetcher(FAST)
    fetcher.fetch(url)  # what is loaded once
    tracemalloc.start()
    try:
        for _ in range(times):
            fetcher.fetch(url)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_sixty_answers_full_of_cookies_leave_none():
    cookies = b"".join(b"Set-Cookie: c%d=%s\r\n" % (i, b"x" * 1000) for i in range(90))
    with answering(once(OK + cookies + WHOLE[len(OK) :])) as attack:
        fetcher = Fetcher(limits())
        assert {fetcher.fetch(attack.url) for _ in range(60)} == {(PICTURE, "")}
        assert not fetcher._session().session.cookies
        assert peak(attack.url, 20) < 10
        assert not any(b"cookie:" in request.lower() for request in attack.asked)


def test_the_body_of_a_redirect_is_not_read():
    head = b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"
    with answering(endless(bytes(2**16), head)) as attack:
        assert Fetcher(FAST).fetch(attack.url) == (b"", "too many redirects")
        assert peak(attack.url) < 10


def test_a_fetch_that_is_over_leaves_no_file_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    with answering(endless(INTERIM)) as attack:
        fetcher = Fetcher(FAST)
        for _ in range(20):
            assert fetcher.fetch(attack.url)[1] == "too many bytes"
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 5

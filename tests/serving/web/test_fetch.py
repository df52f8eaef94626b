"""Image URLs of callers: only public addresses, and bounds that hostile servers meet."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mufin.corpus import addresses
from mufin.corpus.reasons import PRIVATE, TOO_LARGE, TOO_MANY_REDIRECTS, Failed, Refused
from mufin.serving.web import fetch
from mufin.serving.web.fetch import ImageFetcher
from mufin.serving.web.limits import Settings
from mufin.serving.web.refusals import Refusal
from tests.support.hostile_answers import WHOLE, Attack, once, serving_attacks
from tests.support.servers import PICTURE, Server, jpeg, serving
from tests.support.web import SECONDS, running


@pytest.fixture
def server():
    with serving(Server()) as server:
        yield server


@pytest.fixture
def all_public(monkeypatch):
    """The local server stands for one of the internet."""
    monkeypatch.setattr(addresses, "public", lambda address: True)


def fetcher(**changes) -> ImageFetcher:
    return ImageFetcher(Settings(**{"image_bytes": 100_000, "fetch_seconds": 5.0} | changes))


def reason(url: str, **changes) -> str:
    with pytest.raises((Refused, Failed)) as error:
        fetcher(**changes).get(url)
    return str(error.value)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "0"]
    + ["[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"]
    + ["169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "[fe80::1]"]
    + ["127.0.0.1.", "[2002:7f00:1::1]", "\u2460\u2461\u2467.0.0.1", "127\u30020\u30020\u30021"],
)
def test_a_private_host_is_never_asked(server, host):
    port = server.server_address[1]
    for scheme in ("http", "https"):
        found = reason(f"{scheme}://{host}:{port}/pic/1.jpg")
        assert found in (PRIVATE, "host name not found", "not a URL")
    assert not server.asked


def test_a_name_that_resolves_to_a_private_address_is_never_asked(server, monkeypatch):
    port = server.server_address[1]
    place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [place])
    assert reason(f"http://shop.example:{port}/pic/1.jpg") == PRIVATE and not server.asked


def test_a_redirect_to_a_private_address_is_not_followed(server, monkeypatch):
    """The first host is public, as far as the judge knows; the second one is this machine."""
    port = server.server_address[1]
    monkeypatch.setattr(addresses, "public", lambda address: address == "127.0.0.2")
    with serving(Server(host="127.0.0.2")) as first:
        for target in (server.url("/pic/1.jpg"), f"//127.0.0.1:{port}/pic/1.jpg"):
            assert reason(first.url(f"/to?{target}")) == PRIVATE
        assert first.asked and not server.asked
        assert fetcher().get(first.url("/to?/pic/1.jpg")) == jpeg(1)


def test_a_name_that_changes_its_address_is_judged_where_it_is_used(server, monkeypatch):
    port, asked = server.server_address[1], []

    def rebound(host, *args, **kwargs):
        asked.append(host)
        address = "127.0.0.2" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with serving(Server(host="127.0.0.2", port=port)) as first:
        monkeypatch.setattr(socket, "getaddrinfo", rebound)
        monkeypatch.setattr(addresses, "public", lambda address: address == "127.0.0.2")
        url = f"http://shop.example:{port}/to?http://shop.example:{port}/pic/1.jpg"
        reuses = fetcher()
        # the connection to the first address may be kept, a new one is judged
        assert reuses.get(f"http://shop.example:{port}/pic/1.jpg") == jpeg(1)
        assert reason(url) == PRIVATE and first.asked and not server.asked


@pytest.mark.parametrize(
    "url, expected",
    [
        ("file:///etc/passwd", fetch.SCHEME),
        ("ftp://host/a.jpg", fetch.SCHEME),
        ("gopher://host/", fetch.SCHEME),
        ("data:image/png;base64,AAAA", fetch.SCHEME),
        ("//host/a.jpg", fetch.SCHEME),
        ("/etc/passwd", fetch.SCHEME),
        ("", fetch.SCHEME),
        ("http://", "not a URL"),
        ("http://[", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://a b/", "not a URL"),
        ("http://host:99999/", "not a URL"),
        ("http://host:x/", "not a URL"),
        ("http://a\r\nHost: b/", "not a URL"),
        ("http://" + "a" * 300 + ".example/", "not a URL"),
        ("http://user:secret@host/", fetch.NAMED),
        ("http://public.example\\@127.0.0.1/", None),
        ("http://127.0.0.1#@public.example/", None),
    ],
)
def test_what_is_no_url_of_a_host_is_refused(url, expected):
    found = reason(url)
    assert found == expected if expected else found


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/404", "HTTP 404"),
        ("/500", "HTTP 500"),
        ("/endless", TOO_LARGE),
        ("/announced", TOO_LARGE),
        ("/drops", "connection failed"),
        ("/drops-in-body", "connection failed"),
        ("/circle/a", TOO_MANY_REDIRECTS),
        ("/to?file:///etc/hostname", fetch.SCHEME),
        ("/to?http://[", "not a URL"),
        ("/to?http://user:a@127.0.0.1/", fetch.NAMED),
    ],
)
def test_a_bad_server_gives_one_reason(all_public, server, path, expected):
    assert reason(server.url(path)) == expected


def test_a_certificate_that_is_not_trusted_is_no_wrong_url(all_public):
    attack = Attack("", once(WHOLE), set(), tls=True)
    with serving_attacks([attack]):
        assert reason(attack.url) == "connection failed"


@pytest.mark.parametrize("path", ["/stalls", "/stalls-in-body", "/drips"])
def test_a_slow_server_costs_at_most_its_seconds(all_public, server, path):
    start = time.monotonic()
    assert reason(server.url(path), fetch_seconds=0.4, fetch_step=0.3) == "timed out"
    assert time.monotonic() - start < 3


def test_the_time_bounds_all_redirects_together(all_public, server):
    server.slow = 0.3
    start = time.monotonic()
    path = "/to?/to?/pic/slow.jpg"
    assert reason(server.url(path), fetch_seconds=0.2) == "timed out"
    assert time.monotonic() - start < 3


def test_a_proxy_of_the_environment_is_not_used(all_public, server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert fetcher().get(server.url("/pic/2.jpg")) == jpeg(2)


def test_too_many_urls_at_once_are_refused(all_public, monkeypatch):
    over = threading.Event()
    busy = fetcher(fetch_threads=1)
    monkeypatch.setattr(busy, "get", lambda url: over.wait(SECONDS) and b"")

    async def ask():
        tasks = [asyncio.ensure_future(busy.fetch("http://a", "images.0")) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refusal) as refused:
            await busy.fetch("http://a", "images.0")
        over.set()
        await asyncio.gather(*tasks)
        return refused.value

    with ThreadPoolExecutor(1) as thread:  # a browser's loop may run in this one
        assert thread.submit(asyncio.run, ask()).result().status == 503


def test_a_question_by_url_gets_the_picture_or_a_sentence(all_public, server):
    def ask(path):
        return client.post("/v1/recommend", json={"images": [server.url(path)], "k": 1})

    with running(image_bytes=100_000, fetch_seconds=2.0) as now, now.client() as client:
        assert ask("/to?/busy").status_code == 200 and len(PICTURE) > 100
        for path, part in [
            ("/404", "HTTP 404"),
            ("/html", "HTML"),
            ("/text", "not a picture"),
            ("/empty", "empty"),
            ("/endless", "too many bytes"),
            ("/drips", "timed out"),
        ]:
            response = ask(path)
            assert response.status_code == 422 and response.json()["field"] == "images.0"
            assert part in response.json()["error"]
        client.post("/v1/recommend", json={"uids": ["p1"]}).raise_for_status()


def test_a_private_url_over_http_is_a_sentence(server):
    with running() as now, now.client() as client:
        for body in ({"images": [server.url("/pic/1.jpg")]}, {"images": [now.url + "/healthz"]}):
            response = client.post("/v1/recommend", json=body)
            assert response.status_code == 422 and PRIVATE in response.json()["error"]
            put = client.put("/v1/products/x", json=body)
            assert put.status_code == 422 and PRIVATE in put.json()["error"]
    assert not server.asked


def test_fetching_slowly_does_not_hold_other_questions(all_public, server):
    with running(fetch_seconds=3.0) as now, now.client() as client:
        slow = threading.Thread(
            target=lambda: client.post(
                "/v1/recommend", json={"images": [server.url("/drips")] * 16}
            )
        )
        slow.start()
        time.sleep(0.2)
        start = time.monotonic()
        assert client.post("/v1/recommend", json={"uids": ["p1"]}).status_code == 200
        assert time.monotonic() - start < 1
        slow.join(SECONDS)

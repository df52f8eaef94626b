"""Kept connections send what requests sends, and read what http.client reads."""

from __future__ import annotations

import gzip
import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.corpus import connections, keep_alive
from mufin.corpus.connections import Session, exchange
from mufin.corpus.keep_alive import OddAnswer, PlainAnswer
from mufin.corpus.reasons import Refused
from tests.support.certificate import certificate
from tests.support.hostile_answers import LENGTH, OK, WHOLE, Attack, chunks, serving_attacks
from tests.support.projects import ROOT, environment
from tests.support.servers import PICTURE, Server, serving, tls


def asked_by(url: str, session: Session) -> bytes:
    """The request, in place of `HERE` the port of its server."""
    attack = Attack("", lambda send: bool(send(WHOLE)), set(), "127.0.0.1")
    with serving_attacks([attack]):
        port = attack.url.rpartition(":")[2].strip("/")
        exchange(5.0, 50.0, public_only=False)
        with closing(session.get(url.replace("HERE", f"127.0.0.1:{port}"), {}, 5.0)) as answer:
            assert answer.status == 200
        return attack.asked[0].replace(port.encode(), b"HERE")


@pytest.mark.parametrize(
    "url",
    ["http://HERE/a/b.jpg", "http://HERE", "http://HERE?x=1", "http://HERE/a?", "http://HERE//a"]
    + ["http://HERE/51%2BxY%41.jpg", "http://HERE/a/../b/./c.jpg", "http://HERE/a b\u00e9.jpg"]
    + ["http://HERE/a?b=c d&e=%zz#part", "HTTP://HERE/a.jpg", "http://user:word@HERE/a.jpg"],
)
def test_a_request_is_byte_for_byte_that_of_requests(url, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    kept = asked_by(url, Session(environment=True, user_agent="a test"))
    monkeypatch.setattr(connections, "_plain", lambda url: None)
    assert kept == asked_by(url, Session(environment=True, user_agent="a test"))
    assert b"Authorization: Basic " in kept


# Answers

LENGTH_5 = "Content-Length: 5"
FIELDS = ["Content-Type: image/jpeg", "X: y", "x:y", "Connection: close", "connection: Keep-Alive"]
FIELDS += [LENGTH_5, "content-length:  5 ", "Content-Length: 500", "Content-Length: 0"]
FIELDS += ["Content-Length: -5", "Content-Length: +5", "Content-Length: 5, 5", "Content-Length:"]
FIELDS += ["Transfer-Encoding: chunked", "Content-Encoding: gzip", "Content-Encoding: identity"]
FIELDS += [" folded", "no colon", "Location: /a", "Location: /b", "Na me: x", "Set-Cookie: a=\xff"]
LINES = ["HTTP/1.1 200 OK", "HTTP/1.1 200", "HTTP/1.1 404 No", "HTTP/1.0 200 OK", "HTTP/1.1 204 -"]
LINES += ["HTTP/1.1 302 Found", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", "ICY 200 OK"]
BODIES = [b"", b"abcde", b"abcdefgh", b"5\r\nabcde\r\n0\r\n\r\n", gzip.compress(b"abcde")]


class Pieces(connections._Socket):
    """Receives at most so many bytes each time, and then as many as there are."""

    sizes: list[int]

    def recv(self, size: int, *args) -> bytes:
        return super().recv(self._next(size), *args)

    def recv_into(self, buffer, *args) -> int:
        return super().recv_into(memoryview(buffer)[: self._next(len(buffer))], *args)

    def _next(self, size: int) -> int:
        return min(size, self.sizes.pop(0)) if self.sizes else size


class OneConnection(urllib3.connection.HTTPConnection):
    """A connection that gets one answer, whatever is asked."""

    def __init__(self, answer: bytes, pieces: list[int]):
        super().__init__("shop.example")
        self.pieces = list(pieces)
        self.ours, self.theirs = socket.socketpair()
        self.theirs.sendall(answer)
        self.theirs.shutdown(socket.SHUT_WR)

    def connect(self) -> None:
        self.sock = Pieces(fileno=self.ours.detach())
        self.sock.sizes = self.pieces


def read_by(answer: bytes, pieces: list[int]) -> tuple:
    """What a kept connection makes of an answer: (status, location, body), or that it is broken."""
    exchange(5.0, 50.0, public_only=False)
    connection = OneConnection(answer, pieces)
    kept = keep_alive.KeepAlive(connection, {})
    try:
        with closing(kept.get("/a.jpg")) as got:
            parts = iter(lambda: got.read1(2**16, decode_content=True), b"")
            return got.status, got.headers.get("location"), b"".join(parts)
    except (urllib3.exceptions.HTTPError, OSError):
        return ("broken",)
    finally:
        kept.close()
        connection.theirs.close()


def compare(line: str, fields: list[str], body: bytes, pieces: list[int]) -> tuple:
    """What is made of an answer, which is what http.client and urllib3 make of it."""
    answer = "".join(f"{text}\r\n" for text in [line, *fields, ""]).encode("latin-1") + body
    found = read_by(answer, pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keep_alive, "_plain", lambda head: None)
        # What urllib3 makes of this length, and of more bytes than five, depends on the pieces
        others = read_by(answer, pieces if "Content-Length: 5, 5" in fields else [])
    assert found == others, (answer, pieces)
    return found


@pytest.mark.parametrize("line", LINES)
def test_a_field_beside_a_length_is_read_as_by_http_client(line):
    for field, body in itertools.product(FIELDS, BODIES):
        for fields in ([field], [field, LENGTH_5], [LENGTH_5, field]):
            compare(line, fields, body, [])


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(LINES),
    st.lists(st.sampled_from(FIELDS), max_size=4),
    st.sampled_from(BODIES),
    st.lists(st.integers(1, 60), max_size=3),
)
def test_any_answer_is_read_as_by_http_client(line, fields, body, pieces):
    compare(line, fields, body, pieces)


def test_a_plain_answer_is_read():
    assert compare("HTTP/1.1 200 OK", [LENGTH_5], b"abcde", []) == (200, None, b"abcde")


def replies(*answers: bytes, secure: bool = False) -> Iterator[tuple[str, list[int]]]:
    """The URL of a server, and its requests per connection, which gets these answers in turn.

    An empty answer closes it. With `secure`, head and body are two records of TLS.
    """
    counts: list[int] = []

    def talk(connection: socket.socket) -> None:
        counts.append(0)
        number = len(counts) - 1
        if secure:
            connection = tls().wrap_socket(connection, server_side=True)
        with connection, suppress(ConnectionError):
            while connection.recv(2**16):
                counts[number] += 1
                if not (answer := answers[(counts[number] - 1) % len(answers)]):
                    return
                head, end, body = answer.partition(b"\r\n\r\n")
                for part in (head + end, body) if secure else (answer,):
                    connection.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:  # closed
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        scheme = "https" if secure else "http"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/a.jpg", counts
        listener.shutdown(socket.SHUT_RDWR)


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(PICTURE) + b"0\r\n\r\n"
PACKED = gzip.compress(PICTURE)
GZIP = OK + b"Content-Encoding: gzip\r\n" + LENGTH % len(PACKED) + PACKED
CLOSES = OK + b"Connection: close\r\n" + WHOLE[len(OK) :]


@pytest.mark.parametrize("secure", [False, True], ids=["", "tls"])
@pytest.mark.parametrize(
    "answer, kind, connected",
    [
        (WHOLE, PlainAnswer, 1),
        (CHUNKED, OddAnswer, 1),
        (GZIP, OddAnswer, 1),
        (CLOSES, PlainAnswer, 3),
        (WHOLE + b"HTTP/1.1 200 OK\r\n", PlainAnswer, 3),  # more than was asked for
    ],
    ids=["plain", "chunked", "gzip", "closes", "more"],
)
def test_a_connection_is_kept_where_its_answer_was_read(
    answer, kind, connected, secure, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate()))
    for url, counts in replies(answer, secure=secure):
        session = Session(environment=True, user_agent="a test")
        for _ in range(3):
            exchange(5.0, 50.0, public_only=False)
            with closing(session.get(url, {}, 5.0)) as got:
                parts = iter(lambda got=got: got.read1(2**16, decode_content=True), b"")
                assert b"".join(parts) == PICTURE and isinstance(got, kind)
        assert len(counts) == connected


@pytest.mark.parametrize("kind", [b"", b"Transfer-Encoding: chunked\r\n"], ids=["", "chunked"])
@pytest.mark.parametrize("most", [2**19, 2**16], ids=["stalls", "too large"])
def test_a_connection_is_not_kept_where_its_answer_broke_off(kind, most):
    """What comes late of the first answer could pass for the second one."""
    length = b"Content-Length: 1048575\r\n\r\n" if not kind else b"\r\nfffff\r\n"
    for url, counts in replies(OK + kind + length + bytes(2**18)):
        session = Session(environment=False, user_agent="a test")
        for asked in (1, 2):
            now = exchange(0.2, 5.0, public_only=False)
            with (
                pytest.raises((urllib3.exceptions.ReadTimeoutError, TimeoutError, Refused)),
                closing(session.get(url, {}, 5.0)) as answer,
            ):
                now.allowed = most
                while answer.read1(2**16):
                    pass
            assert counts == [1] * asked


def test_a_connection_that_the_host_closed_is_made_anew():
    with serving(Server()) as server:  # it closes each connection after its answer
        session = Session(environment=False, user_agent="a test")
        for _ in range(5):
            exchange(5.0, 50.0, public_only=False)
            with closing(session.get(server.url("/pic/1.jpg"), {}, 5.0)) as answer:
                assert answer.status == 200 and answer.read1()


def test_a_request_that_meets_a_closing_connection_is_sent_once_more():
    """The host reads the second request of each connection, and closes it without an answer."""
    for url, counts in replies(WHOLE, b""):
        session = Session(environment=False, user_agent="a test")
        for _ in range(4):
            exchange(5.0, 50.0, public_only=False)
            with closing(session.get(url, {}, 5.0)) as answer:
                assert answer.status == 200 and answer.read1() == PICTURE
        assert counts == [2, 2, 2, 1]


def test_few_connections_stay_open(monkeypatch):
    monkeypatch.setattr(connections, "KEPT", 2)
    for url, _ in replies(WHOLE):
        session = Session(environment=False, user_agent="a test")
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "127.0.0.1"):
            exchange(5.0, 50.0, public_only=False)
            with closing(session.get(url.replace("127.0.0.1", host), {}, 5.0)) as answer:
                assert answer.read1()
        assert len(session.kept) == 2 and None not in session.kept.values()


SCRIPT = """
from mufin.corpus.connections import Session
session = Session(environment=False, user_agent="a test")
class Changing:
    def close(self):
        session.kept["http://another"] = None  # as a thread that goes on
session.kept["http://one"] = Changing()
"""


def test_the_end_of_the_process_leaves_connections_to_their_threads():
    env = environment(PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

"""A local server with every kind of bad answer, and the bounds of a fetch."""

from __future__ import annotations

import contextlib
import io
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from PIL import Image

from mufin.corpus.fetch import Limits
from tests.support.certificate import certificate


def jpeg(colour: int = 0, side: int = 16) -> bytes:
    """A square picture of one colour; each number up to 255 has a colour of its own."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (colour * 37 % 256, colour * 91 % 256, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


PICTURE = jpeg()


def tls() -> ssl.SSLContext:
    """For a local server; its certificate names localhost and 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate())
    return context


def limits(**changes) -> Limits:
    """Bounds of a fetch in a test: seconds at most, private addresses allowed."""
    return Limits(
        **{
            "timeout": 10.0,
            "max_bytes": 100_000,
            "retries": 2,
            "per_host": 4,
            "max_redirects": 3,
            "private_addresses": True,
            "user_agent": "a test",
        }
        | changes
    )


class Server(ThreadingHTTPServer):
    """Counts requests by path; keeps when each came and the most that were under way at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler=None, host: str = "127.0.0.1", port: int = 0):
        super().__init__((host, port), handler or Handler)
        self.asked, self.times, self.now, self.most = Counter(), [], 0, 0
        self.lock, self.over = threading.Lock(), threading.Event()
        self.slow = 0.0  # seconds that the pictures of /pic/slow take

    def url(self, path: str) -> str:
        return "http://{}:{}".format(*self.server_address) + path


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path: `/404` has that status, `/stalls` comes too late."""

    server: Server

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, self.path = self.server, unquote(self.path)
        with server.lock:
            server.asked[self.path] += 1
            server.times.append((self.path, time.monotonic()))
        try:
            getattr(self, "_" + self.path.partition("?")[0].split("/")[1].replace("-", "_"))(
                server.asked[self.path]
            )
        except OSError:
            pass

    def answer(self, status: int = 200, body: bytes = b"", **headers: str):
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _pic(self, n):
        name = self.path.rpartition("/")[2]
        if name == "slow.jpg":
            self.server.over.wait(self.server.slow)
        self.answer(
            body=jpeg(int(name[:-4]) if name[:-4].isdigit() else 0), Content_Type="image/jpeg"
        )

    def _busy(self, n):
        server = self.server
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(0.02)
        with server.lock:
            server.now -= 1  # before the answer, after which the next request may come at once
        self.answer(body=PICTURE)

    def _stalls(self, n):
        self.server.over.wait(5)

    def _stalls_in_body(self, n):
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(PICTURE[:50])
        self.wfile.flush()
        self.server.over.wait(5)

    def _drips(self, n):
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        while not self.server.over.wait(0.02):
            self.wfile.write(b"x")
            self.wfile.flush()

    def _drops(self, n):
        self.close_connection = True

    def _drops_in_body(self, n):
        self.answer(body=PICTURE[:100], Content_Length="5000")

    def _drops_once(self, n):
        if n > 1:
            self.answer(body=PICTURE)

    def _circle(self, n):
        self.answer(302, Location="/circle/b" if self.path.endswith("a") else "/circle/a")

    def _to(self, n):
        self.answer(302, Location=self.path.partition("?")[2])

    def _404(self, n):
        self.answer(int(self.path[1:4]))

    _403 = _500 = _404

    def _429(self, n):
        self.answer(429, Retry_After=self.path.partition("?")[2]) if n == 1 else self.answer(
            body=PICTURE
        )

    def _500_once(self, n):
        self.answer(500) if n == 1 else self.answer(body=PICTURE)

    def _html(self, n):
        self.answer(body=b"\n<!DOCTYPE html><p>no</p>", Content_Type="image/jpeg")

    def _text(self, n):
        self.answer(body=b"no picture at all", Content_Type="image/jpeg")

    def _truncated(self, n):
        self.answer(body=jpeg(side=200)[:700], Content_Type="image/jpeg")

    def _wrong_type(self, n):
        self.answer(body=PICTURE, Content_Type="text/html")

    def _wrong_length(self, n):
        self.close_connection = True
        self.answer(body=PICTURE, Content_Length="many")

    def _empty(self, n):
        self.answer()

    def _announced(self, n):
        self.answer(body=b"", Content_Length="123456789")

    def _endless(self, n):
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PICTURE)
        while not self.server.over.is_set():
            self.wfile.write(bytes(4096))


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """`server`, answering in threads of its own until the end of the block."""
    with server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        yield server
        server.over.set()
        server.shutdown()

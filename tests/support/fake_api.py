"""A small server with the HTTP contract of `mufin serve`, for tests of the page.

`python -m tests.support.fake_api` serves the page at a free port of this machine.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import mufin
from tests.support.fake_products import Item, answer, catalog, info

PAGE = Path(mufin.__file__).parent / "serving/web/page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = "default-src 'self'; img-src 'self' data: blob:"


class FakeApi(ThreadingHTTPServer):
    """Keeps products, answers questions by words and colours, and records what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.images: dict[str, bytes] = {}
        self.reset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a page that is closed ends its connections."""

    def reset(self) -> None:
        """As it was at the start."""
        self.asked: list[dict] = []  # questions, and "uploads" of each
        self.changed: list[tuple[str, str, dict]] = []  # method, uid, content
        self.refusals: list[tuple[int, str, dict]] = []  # of the next questions
        self.delays: list[float] = []  # seconds, of the next questions
        self.key: str | None = None
        self.items = catalog(self.images)


class _Handler(BaseHTTPRequestHandler):
    server: FakeApi
    protocol_version = "HTTP/1.1"  # keeps connections, as the page loads many small files

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/" or path.startswith("/static/"):
            return self._page("index.html" if path == "/" else path.removeprefix("/static/"))
        if self._refused():
            return
        if path == "/v1/model":
            return self._json(200, info(self.server.items))
        if path == "/v1/products":
            return self._found(parse_qs(urlsplit(self.path).query))
        if path.startswith("/v1/pictures/"):
            content = self.server.images.get(unquote(path.rsplit("/", 1)[1]))
            return self._send(200, content, "image/png") if content else self._none("picture")
        item = self.server.items.get(self._uid())
        return self._json(200, item.json()) if item else self._none("product")

    def do_POST(self) -> None:
        content, files = self._body("query")
        if self._refused():
            return
        with self.server.lock:
            self.server.asked.append(content | {"uploads": len(files)})
            delay = self.server.delays.pop(0) if self.server.delays else 0
            refusal = self.server.refusals.pop(0) if self.server.refusals else None
        time.sleep(delay)
        if refusal:
            status, text, headers = refusal
            return self._json(status, {"error": text, "field": None}, headers)
        self._json(*answer(self.server.items, content, files))

    def do_PUT(self) -> None:
        content, files = self._body("product")
        if self._refused():
            return
        uid = self._uid()
        self.server.changed.append(("PUT", uid, content | {"uploads": len(files)}))
        keys = [f"{uid}-live-{n}.png" for n in range(len(files))]
        self.server.images |= zip(keys, files)
        item = Item(uid, content["title"], content["category"], content["attributes"], keys, True)
        item.texts = content["texts"]
        self.server.items[uid] = item
        self._json(200, item.json())

    def do_DELETE(self) -> None:
        if self._refused():
            return
        self.server.changed.append(("DELETE", self._uid(), {}))
        if self.server.items.pop(self._uid(), None) is None:
            return self._none("product")
        self._send(204, b"", "text/plain")

    def _uid(self) -> str:
        return unquote(urlsplit(self.path).path.removeprefix("/v1/products/"))

    def _refused(self) -> bool:
        key = self.server.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return False
        self._json(401, {"error": "the API key is missing or wrong", "field": None})
        return True

    def _found(self, given: dict) -> None:
        text, limit = given.get("text", [""])[0].lower(), int(given["limit"][0])
        items = [i for i in self.server.items.values() if text in i.title.lower() or text in i.uid]
        self._json(200, {"products": [item.json() for item in items[:limit]]})

    def _body(self, part: str) -> tuple[dict, list[bytes]]:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.headers.get("Content-Type", "")
        if kind == "application/json":
            return json.loads(body), []
        form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        parts = {"images": []} | {part: b"{}"}
        for piece in form.get_payload():
            name = piece.get_param("name", header="content-disposition")
            content = piece.get_payload(decode=True)
            if name == "images":
                parts["images"].append(content)
            else:
                parts[name] = content
        return json.loads(parts[part]), parts["images"]

    def _page(self, name: str) -> None:
        path = PAGE / name
        if path.parent != PAGE or not path.is_file():
            return self._none("file")
        self._send(200, path.read_bytes(), TYPES[path.suffix])

    def _none(self, what: str) -> None:
        self._json(404, {"error": f"there is no such {what}", "field": None})

    def _json(self, status: int, content: dict, headers: dict | None = None) -> None:
        self._send(status, json.dumps(content).encode(), "application/json", headers)

    def _send(self, status: int, content: bytes, kind: str, headers: dict | None = None) -> None:
        self.send_response(status)
        given = {"Content-Type": kind, "Content-Length": str(len(content))}
        given |= {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        for name, value in (given | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(content)
        except OSError:  # the page did not wait for it
            pass


@contextmanager
def serving() -> Iterator[FakeApi]:
    """A server on a free port of this machine, for as long as the context lasts."""
    api = FakeApi()
    thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.shutdown()
        api.server_close()


if __name__ == "__main__":
    with serving() as api:
        print(api.url)
        threading.Event().wait()

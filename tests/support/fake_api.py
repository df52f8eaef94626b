"""A small server with the HTTP contract of `mufin serve`, for tests of the page.

`python -m tests.support.fake_api` serves the page at a free port of this machine.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from PIL import Image, ImageDraw

import mufin

PAGE = Path(mufin.__file__).parent / "serving/web/page"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = "default-src 'self'; img-src 'self' data: blob:"
COLOURS = {"red": (200, 60, 50), "blue": (50, 90, 190), "green": (60, 150, 80)}
THINGS = {
    "Mug": ("Kitchen", "Mugs"),
    "Bowl": ("Kitchen", "Bowls"),
    "Chair": ("Home", "Chairs"),
    "Lamp": ("Home", "Lamps"),
}
CATEGORIES = [*dict.fromkeys(name for names in THINGS.values() for name in names)]
CATEGORIES += [f"Category {number}" for number in range(20)]
HOSTILE = "<img src=x onerror=\"document.title='broken in'\"><script>document.title=1</script>"
BETA = 0.4


def picture(colour: tuple[int, int, int], thing: str = "Mug", turned: bool = False) -> bytes:
    """A PNG of a simple shape in a colour."""
    image = Image.new("RGB", (240, 240), (250, 249, 246))
    draw = ImageDraw.Draw(image)
    lid = 60 if turned else 80
    if thing in ("Mug", "Lamp"):
        draw.rectangle((70, lid, 160, 190), fill=colour)
        draw.ellipse((140, 90, 200, 160), outline=colour, width=14)
    else:
        draw.pieslice((40, lid - 40, 200, 200), 0, 180, fill=colour)
        draw.rectangle((95, 190, 145, 205), fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def colour_of(content: bytes) -> str:
    """The name of the colour that most of a picture's shape has."""
    pixels = Image.open(io.BytesIO(content)).convert("RGB").resize((24, 24)).get_flattened_data()
    dark = [p for p in pixels if sum(p) < 600] or [(128, 128, 128)]
    mean = [sum(channel) / len(dark) for channel in zip(*dark)]
    return min(COLOURS, key=lambda n: sum((a - b) ** 2 for a, b in zip(COLOURS[n], mean)))


@dataclass
class Item:
    uid: str | None
    title: str
    category: list[str] = field(default_factory=list)
    attributes: dict = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)  # keys
    live: bool = False
    colour: str | None = None  # of the pictures

    def json(self) -> dict:
        return {
            "uid": self.uid,
            "title": self.title,
            "category": self.category,
            "attributes": self.attributes,
            "pictures": [f"/v1/pictures/{quote(key, safe='')}" for key in self.pictures],
            "answerable": True,
            "live": self.live,
        }


class FakeApi(ThreadingHTTPServer):
    """Keeps products, answers questions by words and colours, and records what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.items: dict[str, Item] = {}
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
        self.items.clear()
        self._fill()

    def _fill(self) -> None:
        for i, (thing, category) in enumerate(THINGS.items()):
            for j, (colour, rgb) in enumerate(COLOURS.items()):
                for size in ("small", "large"):
                    uid = f"{thing.lower()}-{colour}-{size}"
                    keys = [f"{uid}-{n}.png" for n in range(1 + (size == "large") * 2)]
                    for n, key in enumerate(keys):
                        if key not in self.images:
                            self.images[key] = picture(rgb, thing, turned=bool(n))
                    price = 5.0 + 7 * i + 2 * j + (size == "large") * 4
                    values = {"price": price, "in_stock": j != 2, "colour": colour}
                    title = f"{thing}, {colour}, {size}"
                    self.items[uid] = Item(uid, title, list(category), values, keys, colour=colour)
        self.items["blank"] = Item("blank", "", ["Kitchen", "Mugs"])
        self.items["hostile"] = Item("hostile", f"Mug {HOSTILE}", ["Kitchen", "<b>Mugs</b>"])
        self.items["long"] = Item("long", "Mug " + "Donaudampfschifffahrt" * 40, ["Kitchen"])
        hebrew = "ספל Mug קרמיקה כחול גדול (350 מ״ל)"
        self.items["right-to-left"] = Item("right-to-left", hebrew, ["Kitchen", "Mugs"])
        self.items["odd/id ?&#"] = Item("odd/id ?&#", "Mug with an odd id", ["Kitchen", "Mugs"])

    def info(self) -> dict:
        return {
            "id": "0123456789ab",
            "products": len(self.items),
            "labels": len(self.items),
            "live": sum(item.live for item in self.items.values()),
            "modalities": ["text", "image", "lexical"],
            "members": 1,
            "mix": {"beta": BETA, "frequency_weight": 0.0, "network_weight": 1.0},
            "candidates": "all",
            "attention": True,
            "attributes": {
                "category": {"kind": "text", "values": CATEGORIES, "more": True},
                "price": {"kind": "number", "min": 5.0, "max": 34.0},
                "in_stock": {"kind": "flag"},
                "colour": {"kind": "text", "values": list(COLOURS), "more": False},
            },
        }

    def answer(self, query: dict, uploads: list[bytes]) -> tuple[int, dict]:
        """The status and content of POST /v1/recommend."""
        k = query.get("k", 10)
        if not 1 <= k <= 1000:
            return 422, {"error": f"k is {k}; it must be less than or equal to 1000", "field": "k"}
        wanted = [*query.get("uids", []), *query.get("avoid", [])]
        if unknown := [uid for uid in wanted if uid not in self.items]:
            text = f"{unknown[0]} is not a product of the catalog; give another one"
            return 422, {"error": text, "field": "uids"}
        members = [self.items[uid] for uid in query.get("uids", [])]
        if query.get("title") or uploads or query.get("category"):
            colour = colour_of(uploads[0]) if uploads else None
            keys = ["upload"] * len(uploads)
            category = query.get("category", [])
            members.append(Item(None, query.get("title", ""), category, {}, keys, colour=colour))
        if not members:
            return 422, {"error": "no product is asked about; give uids", "field": "uids"}
        avoid = [self.items[uid] for uid in query.get("avoid", [])]
        found = [
            _scored(item, members, avoid, query)
            for uid, item in self.items.items()
            if uid not in wanted and item.title and _meets(item, query.get("where") or {})
        ]
        found.sort(key=lambda answer: -answer["score"])
        if query.get("fold"):
            first: dict[str, dict] = {}
            for answer in found:
                first.setdefault(answer["title"].split(",")[0], answer)
            found = list(first.values())
        return 200, {"answers": found[:k], "model": "0123456789ab", "milliseconds": 3.2}


def _words(item: Item) -> set[str]:
    return set(item.title.lower().replace(",", " ").split())


def _meets(item: Item, where: dict) -> bool:
    for name, condition in where.items():
        value = item.category if name == "category" else item.attributes.get(name)
        if isinstance(condition, dict):
            low, high = condition.get("gte", -1e9), condition.get("lte", 1e9)
            if value is None or not low <= value <= high:
                return False
        else:
            wanted = condition if isinstance(condition, list) else [condition]
            if not set(wanted) & set(value if isinstance(value, list) else [value]):
                return False
    return True


def _like(one: Item, other: Item, modalities: list[str]) -> float:
    a, b = _words(one), _words(other)
    text = len(a & b) / max(1, len(a | b)) if {"text", "lexical"} & set(modalities) else 0.0
    image = float(bool(one.colour) and one.colour == other.colour) if "image" in modalities else 0.0
    return 0.6 * text + 0.4 * image


def _scored(item: Item, members: list[Item], avoid: list[Item], query: dict) -> dict:
    modalities = query.get("modalities") or ["text", "image", "lexical"]
    beta = (query.get("mix") or {}).get("beta", BETA)
    readable = [m for m in members if m.title or m.pictures]
    if not readable:
        parts = {"popularity": float(item.category[:2] == members[0].category[:2])}
    else:
        same = sum(item.category[:1] == m.category[:1] for m in readable) / len(readable)
        like = sum(_like(item, m, modalities) for m in readable) / len(readable)
        parts = {"classifier": beta * (same - 0.2), "similarity": (1 - beta) * like}
        if avoid:
            parts["avoid"] = -0.5 * sum(_like(item, a, modalities) for a in avoid) / len(avoid)
    why = [reason for m in readable for reason in _reasons(m, item)] if query["reasons"] else []
    return item.json() | {
        "score": sum(parts.values()),
        "parts": parts,
        "fallback": not readable,
        "why": sorted(why, key=lambda reason: -reason["weight"])[:3],
    }


def _reasons(asked: Item, item: Item) -> Iterator[dict]:
    """The second picture goes to the title with 0.61, and so on: enough to draw."""
    last = len(asked.pictures) - 1
    pairs = [("title", 0, "title", 0, 0.28), ("words", 0, "title", 0, 0.11)]
    if asked.pictures:
        pairs.append(("picture", min(last, 1), "title", 0, 0.61))
    if asked.pictures and item.pictures:
        pairs.append(("picture", 0, "picture", len(item.pictures) - 1, 0.47))
    for kind, number, other, place, weight in pairs:
        yield {
            "query": {"uid": asked.uid, "kind": kind, "number": number},
            "answer": {"uid": item.uid, "kind": other, "number": place},
            "weight": weight,
            "by": "attention",
        }


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
            return self._json(200, self.server.info())
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
        self._json(*self.server.answer(content, files))

    def do_PUT(self) -> None:
        content, files = self._body("product")
        if self._refused():
            return
        uid = self._uid()
        self.server.changed.append(("PUT", uid, content | {"uploads": len(files)}))
        keys = [f"{uid}-live-{n}.png" for n in range(len(files))]
        self.server.images |= zip(keys, files)
        item = Item(uid, content["title"], content["category"], content["attributes"], keys, True)
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

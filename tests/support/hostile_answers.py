"""Some 180 answers to a request for a picture, of servers that mean harm or are broken.

Each has its own local server, since a host that fails too often is given up.
"""

from __future__ import annotations

import contextlib
import gzip
import selectors
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.support.servers import PICTURE, jpeg, tls

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = OK + LENGTH % len(PICTURE) + PICTURE
GAP = 0.03  # seconds between two bytes of a drip: far below the timeout
ZEROS = bytes(2**16)
BAD_LENGTHS = ["many", "-5", "9" * 5000, "nan", "1e3", "0x10", "5, 7", "+1", "\xb2", str(10**17)]
BAD_CHUNKS = ["-1", "0x5", "g", "", " ", "5 5", "f" * 16, "f" * 5000, "1_0"]
YEARS = [
    "999999999",
    "9" * 400,
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "-5",
    "soon",
    "nan",
    "1e99",
    "\xff",
]

Send = Callable[[bytes], None]
Answer = Callable[[Send], bool]  # whether the connection stays open afterwards


@dataclass
class Attack:
    """A server's way to answer, and what may become of it: '' is a picture, else a reason."""

    name: str
    answer: Answer
    outcomes: set[str]
    host: str = "localhost"
    tls: bool = False
    waits: bool = True  # for the request
    spent: list[float] = field(default_factory=list)  # seconds until a connection was closed
    asked: list[bytes] = field(default_factory=list)  # the requests
    url: str = ""


def once(*parts: bytes) -> Answer:
    """Sends the parts and closes the connection."""
    return lambda send: bool(send(b"".join(parts)))


def endless(piece: bytes, first: bytes = b"") -> Answer:
    """Sends the same piece for ever, as fast as it is read."""
    many = piece * max(2**14 // len(piece), 1)

    def answer(send: Send) -> bool:
        send(first)
        while True:
            send(many)

    return answer


def drip(piece: bytes, first: bytes = b"") -> Answer:
    """Sends a piece byte by byte for ever: each byte in time, the whole never."""

    def answer(send: Send) -> bool:
        send(first)
        while True:
            for byte in piece:
                time.sleep(GAP)
                send(bytes([byte]))

    return answer


def stall(first: bytes) -> Answer:
    """Sends the begin and then nothing."""

    def answer(send: Send) -> bool:
        send(first)
        return True

    return answer


def bomb(size: int) -> bytes:
    """Gzipped zeros that unpack to `size` bytes."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(ZEROS) for _ in range(size // len(ZEROS))) + packer.flush()


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


def encoded(names: bytes, content: bytes) -> bytes:
    return OK + b"Content-Encoding: " + names + b"\r\n" + LENGTH % len(content) + content


BROKEN, LATE, LARGE = {"connection failed"}, {"timed out"}, {"too many bytes"}
NO_PICTURE = {"not a picture"}


def attacks() -> list[Attack]:
    """All of them, in families."""
    found = [*_heads(), *_before(), *_lengths(), *_chunks(), *_encodings(), *_redirects()]
    return [*found, *_statuses(), *_bodies(), *_cookies(), *_tls()]


def _heads() -> Iterator[Attack]:
    """Status lines and headers."""
    for name, line in {
        "junk": bytes(range(256)) * 4,
        "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
        "icy": b"ICY 200 OK\r\n\r\n" + PICTURE,
        "no status": b"HTTP/1.1\r\n\r\n",
        "words": b"HTTP/1.1 fine OK\r\n\r\n",
        "too large": b"HTTP/1.1 99999 OK\r\n\r\n",
        "negative": b"HTTP/1.1 -200 OK\r\n\r\n",
        "of the future": b"HTTP/9.9 200 OK\r\n\r\n",
        "none": PICTURE,
        "long": b"HTTP/1.1 200 " + b"O" * 70_000 + b"\r\n\r\n",
        "nul": b"\0" * 70_000,
        "nothing": b"",
    }.items():
        yield Attack(f"status: {name}", once(line), BROKEN)
    yield Attack("status: drips", drip(b"HTTP/1.1 200 OK"), LATE)
    yield Attack("status: stalls", stall(b"HTTP/1.1 2"), LATE)
    yield Attack("status: endless", endless(b"HTTP/1.1 200 "), BROKEN | LARGE)
    yield Attack("headers: drip", drip(b"X: y\r\n", OK), LATE)
    yield Attack("headers: one drips", drip(b"y", OK + b"X: "), LATE)
    yield Attack("headers: stall", stall(OK + b"X: y\r\n"), LATE)
    yield Attack("headers: endless", endless(b"X: y\r\n", OK), BROKEN | LARGE)
    yield Attack("headers: endless folds", endless(b" y\r\n", OK + b"X: y\r\n"), BROKEN | LARGE)
    yield Attack("headers: one endless", endless(b"y" * 99, OK + b"X: "), BROKEN | LARGE)
    for name, head in {
        "200 of them": b"X: y\r\n" * 200,
        "one of 70 KB": b"X: " + b"y" * 70_000 + b"\r\n",
        "90 of 60 KB": (b"X: " + b"y" * 60_000 + b"\r\n") * 90,
    }.items():
        yield Attack(f"headers: {name}", once(OK + head, LENGTH % 5), BROKEN | LARGE)
    for name, head in {
        "no colon": b"what is this\r\n",
        "binary": bytes(range(14, 256)) + b"\r\n",
        "no name": b": x\r\n",
        "terminal": b"X: \x1b[2J\x1b]0;owned\x07\r\n",
        "spaces": b" " * 60_000 + b"\r\n",
    }.items():
        yield Attack(f"headers: {name}", once(OK + head, WHOLE[len(OK) :]), {"", *BROKEN, *LATE})


def _before() -> Iterator[Attack]:
    """Interim answers before the real one."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    yield Attack("100: one", once(interim, WHOLE), {""})
    yield Attack("100: a thousand", once(interim * 1000, WHOLE), {""})
    yield Attack("100: endless", endless(interim), LARGE)
    yield Attack("100: drips", drip(interim), LATE)
    yield Attack("100: stalls", stall(interim), LATE)
    large = endless(b"X: " + b"y" * 900 + b"\r\n", interim[:-2])
    yield Attack("100: large headers", large, BROKEN | LARGE)
    yield Attack("100: drips headers", drip(b"X: y\r\n", interim[:-2]), LATE)
    for status in (101, 102, 103):
        yield Attack(f"{status}", once(b"HTTP/1.1 %d X\r\n\r\n" % status), {f"HTTP {status}"})
        yield Attack(f"{status}: stalls", stall(b"HTTP/1.1 %d X\r\n" % status), LATE)


def _lengths() -> Iterator[Attack]:
    """Content-Length that does not fit what comes, and bodies that never end."""
    for value in BAD_LENGTHS:
        head = OK + f"Content-Length: {value}\r\n\r\n".encode("latin-1")
        allowed = {"", *BROKEN, *LARGE, *NO_PICTURE}
        yield Attack(f"length: {value[:20]}", once(head, PICTURE), allowed)
    yield Attack("length: too long", once(OK, LENGTH % 5000, PICTURE), BROKEN)
    yield Attack("length: too short", once(OK, LENGTH % 100, PICTURE), {""})
    yield Attack("length: zero", once(OK, LENGTH % 0, PICTURE), {"empty"})
    yield Attack("length: none", once(OK + b"\r\n", PICTURE), {""})
    yield Attack("length: announced", once(OK, LENGTH % 10**12), LARGE)
    both = OK + b"Transfer-Encoding: chunked\r\n" + LENGTH % 7
    yield Attack("length: and chunks", once(both, chunks(PICTURE, b"")), {""})
    yield Attack("body: endless", endless(ZEROS, OK + b"\r\n" + PICTURE), LARGE)
    yield Attack("body: drips", drip(b"\0", OK + LENGTH % 5000 + PICTURE[:50]), LATE)
    yield Attack("body: drips for ever", drip(b"\0", OK + b"\r\n" + PICTURE), LATE)
    yield Attack("body: stalls", stall(OK + LENGTH % 5000 + PICTURE[:50]), LATE)


def _chunks() -> Iterator[Attack]:
    for size in BAD_CHUNKS:
        content = size.encode() + b"\r\n" + PICTURE
        allowed = {*BROKEN, "empty"} | NO_PICTURE
        yield Attack(f"chunk: {size[:20]!r}", once(CHUNKED, content), allowed)
    yield Attack("chunks: good", once(CHUNKED, chunks(PICTURE[:9], PICTURE[9:], b"")), {""})
    yield Attack("chunks: no end", once(CHUNKED, chunks(PICTURE)), BROKEN)
    yield Attack("chunks: no line breaks", once(CHUNKED, b"5\r\nabcde5\r\nabcde"), BROKEN)
    tiny = endless(b"1\r\n\0\r\n", CHUNKED)
    yield Attack("chunks: tiny and endless", tiny, LARGE)
    yield Attack(
        "chunks: extensions", endless(b"1;x=" + b"y" * 999 + b"\r\n\0\r\n", CHUNKED), LARGE
    )
    yield Attack("chunk size: endless", endless(b"0", CHUNKED), {*BROKEN, *LARGE})
    yield Attack("chunk size: drips", drip(b"0", CHUNKED), LATE)
    yield Attack("chunk size: later drips", drip(b"0", CHUNKED + chunks(PICTURE)), LATE)
    yield Attack("chunk size: stalls", stall(CHUNKED + b"5"), LATE)
    yield Attack("chunk extension: drips", drip(b"x", CHUNKED + b"5;"), LATE)
    end = CHUNKED + chunks(PICTURE) + b"0\r\n"
    yield Attack("trailers: good", once(end, b"X: y\r\n\r\n"), {""})
    yield Attack("trailers: endless", endless(b"X: y\r\n", end), LARGE)
    yield Attack("trailers: drip", drip(b"X: y\r\n", end), LATE)
    yield Attack("trailers: stall", stall(end + b"X: y\r\n"), LATE)
    yield Attack("trailers: long", once(end, b"X: " + b"y" * 70_000), {*BROKEN, *LARGE})


def _encodings() -> Iterator[Attack]:
    """Content-Encoding: bombs, and streams that give no output."""
    yield Attack("gzip: good", once(encoded(b"gzip", gzip.compress(PICTURE))), {""})
    raw = zlib.compressobj(wbits=-15)
    deflated = raw.compress(PICTURE) + raw.flush()
    yield Attack("deflate: good", once(encoded(b"deflate", zlib.compress(PICTURE))), {""})
    yield Attack("deflate: raw", once(encoded(b"deflate", deflated)), {""})
    large = bomb(2**29)  # half a gigabyte
    for layers in (1, 2, 3, 5):
        content = large
        for _ in range(layers - 1):
            content = gzip.compress(content)
        names = b", ".join([b"gzip"] * layers)
        yield Attack(f"bomb: {layers} layers", once(encoded(names, content)), LARGE)
    packed = zlib.compress(bytes(2**24))
    yield Attack("bomb: deflate", once(encoded(b"deflate", packed)), LARGE)
    small = bomb(2**20)
    yield Attack("bomb: of many members", once(encoded(b"gzip", small * 90)), LARGE)
    unended = OK + b"Content-Encoding: gzip\r\n\r\n"
    yield Attack("bomb: endless", endless(small, unended), LARGE)
    yield Attack("gzip: seven layers", once(encoded(b",".join([b"gzip"] * 7), b"x")), BROKEN)
    for name, content in {
        "no gzip": PICTURE,
        "cut off": gzip.compress(PICTURE)[:-20],
        "wrong checksum": gzip.compress(PICTURE)[:-8] + bytes(8),
        "only a header": gzip.compress(b"")[:10],
    }.items():
        allowed = {"", *BROKEN, *NO_PICTURE, "empty"}
        yield Attack(f"gzip: {name}", once(encoded(b"gzip", content)), allowed)
    for name in (b"br", b"zstd", b"identity", b"x" * 3000, b"\xff\x00"):
        allowed = {"", *BROKEN, *NO_PICTURE}
        yield Attack(f"encoding {name[:9]!r}", once(encoded(name, PICTURE)), allowed)
    name = b"\x1f\x8b\x08\x08" + bytes(6)  # a header with a file name that never ends
    yield Attack("gzip: endless name", endless(b"x", unended + name), LARGE)
    yield Attack("gzip: endless empty members", endless(gzip.compress(b""), unended), LARGE)
    blocks = OK + b"Content-Encoding: deflate\r\n\r\n"
    empty = b"\x00\x00\x00\xff\xff"  # a stored block of no bytes
    yield Attack("deflate: endless empty blocks", endless(empty, blocks + b"\x78\x9c"), LARGE)
    yield Attack("deflate: empty blocks drip", drip(empty, blocks + b"\x78\x9c"), LATE)
    yield Attack("deflate: raw empty blocks", endless(empty, blocks), LARGE)


def _redirects() -> Iterator[Attack]:
    def to(place: bytes, status: int = 302, body: bytes = b"") -> bytes:
        head = b"HTTP/1.1 %d Moved\r\nLocation: %s\r\n" % (status, place)
        return head + LENGTH % len(body) + body

    for scheme in (
        b"file:///etc/hostname",
        b"ftp://127.0.0.1/a",
        b"data:image/png;base64,AA",
        b"x:",
    ):
        yield Attack(f"to {scheme[:5]!r}", once(to(scheme)), {"redirect to another scheme"})
    for place in (b"http://[", b"http://a:99999999/", b"http://%00/", b"http://a b/"):
        allowed = {"not a URL", "redirect to another scheme", "host name not found"}
        yield Attack(f"to {place!r}", once(to(place)), allowed)
    for status in (301, 302, 303, 307, 308):
        yield Attack(f"{status}: to itself", once(to(b"/", status)), {"too many redirects"})
        head = b"HTTP/1.1 %d X\r\n\r\n" % status
        yield Attack(f"{status}: to nowhere", once(head), {f"HTTP {status}"})
    yield Attack("to longer and longer", once(to(b"x/")), {"too many redirects"})
    yield Attack("to a long URL", once(to(b"/" + b"x" * 60_000)), {"too many redirects"})
    yield Attack("to binary", once(to(b"/" + bytes(range(128, 256)))), {"too many redirects"})
    # the body of a redirect is of no use, so it is not read
    head = b"HTTP/1.1 302 X\r\nLocation: /\r\n\r\n"
    yield Attack("redirect: endless body", endless(ZEROS, head), {"too many redirects"})
    yield Attack("redirect: body drips", drip(b"\0", head), {"too many redirects"})
    packed = head[:-2] + b"Content-Encoding: gzip\r\n\r\n" + bomb(2**27)
    yield Attack("redirect: bomb", once(packed), {"too many redirects"})
    for status in (300, 304, 305):
        yield Attack(f"{status}", once(to(b"/", status)), {f"HTTP {status}"})


def _statuses() -> Iterator[Attack]:
    for number, years in enumerate(YEARS, 2):
        head = f"HTTP/1.1 503 Busy\r\nRetry-After: {years}\r\n".encode("latin-1")
        yield Attack(
            f"wait {years[:20]}", once(head, LENGTH % 0), {"HTTP 503"}, f"127.0.0.{number}"
        )
    for status in (201, 204, 206, 400, 401, 403, 404, 407, 410, 418, 451, 501, 599, 999):
        answer = b"HTTP/1.1 %d X\r\n" % status + LENGTH % 0
        yield Attack(f"{status}", once(answer), {f"HTTP {status}"})
    for status in (408, 425, 429, 500, 502, 504):
        endless_error = endless(ZEROS, b"HTTP/1.1 %d X\r\n\r\n" % status)
        yield Attack(f"{status}: endless body", endless_error, {f"HTTP {status}"})


def _bodies() -> Iterator[Attack]:
    """Bodies that are no picture, or only begin as one."""
    for name, content, reason in [
        ("html", b"<!DOCTYPE html><p>no</p>", "HTML instead of a picture"),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not read"),
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n", "EPS is not read"),
        ("pdf", b"%PDF-1.7\n", "PDF is not read"),
        ("ico", b"\0\0\1\0\1\0", "ICO is not read"),
        ("psd", b"8BPS\0\1", "PSD is not read"),
        ("zip", b"PK\3\4" + bytes(30), "ZIP is not read"),
        ("json", b'{"error": "log in"}', "not a picture"),
        ("text", b"\x1b[2Jno picture", "not a picture"),
        ("zeros", bytes(90_000), "not a picture"),
        ("empty", b"", "empty"),
        (
            "34 bytes of WebP",
            b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\xff" + bytes(9),
            "",
        ),
        ("a truncated picture", jpeg(side=200)[:700], ""),
        ("a picture and more", PICTURE + ZEROS[:50_000], ""),
    ]:
        answer = once(OK, b"Content-Type: image/jpeg\r\n", LENGTH % len(content), content)
        yield Attack(f"body: {name}", answer, {reason})


def _cookies() -> Iterator[Attack]:
    for size, count in ((10, 90), (1000, 60), (60_000, 1)):
        cookies = b"".join(
            b"Set-Cookie: c%d=%s; Max-Age=99999999\r\n" % (i, b"x" * size) for i in range(count)
        )
        yield Attack(f"cookies of {size}", once(OK + cookies, WHOLE[len(OK) :]), {""})


def _tls() -> Iterator[Attack]:
    """https: before and inside of TLS. The certificate is one that the client trusts."""
    yield Attack("tls: good", once(WHOLE), {""}, tls=True)
    yield Attack("tls: status drips", drip(b"HTTP/1.1 200 OK"), LATE, tls=True)
    yield Attack("tls: headers drip", drip(b"X: y\r\n", OK), LATE, tls=True)
    yield Attack("tls: 100 endless", endless(b"HTTP/1.1 100 X\r\n\r\n"), LARGE, tls=True)
    yield Attack("tls: chunk size drips", drip(b"0", CHUNKED), LATE, tls=True)
    yield Attack("tls: trailers drip", drip(b"X: y\r\n", CHUNKED + b"0\r\n"), LATE, tls=True)
    yield Attack("tls: body endless", endless(ZEROS, OK + b"\r\n"), LARGE, tls=True)
    plain = {"waits": False, "tls": True}
    yield Attack("handshake: plain http", once(WHOLE), BROKEN, **plain)
    yield Attack("handshake: stalls", stall(b""), LATE, **plain)
    yield Attack("handshake: junk", endless(bytes(range(256))), BROKEN, **plain)
    record = b"\x16\x03\x03\x40\x00"  # the head of a handshake record of 16 KB
    yield Attack("handshake: drips", drip(b"\x02", record), LATE, **plain)
    yield Attack("handshake: closed", once(record), BROKEN, **plain)


@contextlib.contextmanager
def serving_attacks(found: list[Attack]) -> Iterator[None]:
    """A local server per attack, whose `url` is set; they end with the block."""
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for attack in found:
            listener = stack.enter_context(socket.create_server((attack.host, 0), backlog=16))
            selector.register(listener, selectors.EVENT_READ, attack)
            scheme = "https" if attack.tls else "http"
            attack.url = f"{scheme}://{attack.host}:{listener.getsockname()[1]}/"
        over = threading.Event()
        thread = threading.Thread(target=_accept, args=(selector, over))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _accept(selector: selectors.BaseSelector, over: threading.Event) -> None:
    while not over.is_set():
        for key, _ in selector.select(0.05):
            connection, _ = key.fileobj.accept()
            threading.Thread(target=_talk, args=(connection, key.data), daemon=True).start()


def _talk(connection: socket.socket, attack: Attack) -> None:
    """Answer one connection; notes how long that took, or until the client closed it."""
    start = time.monotonic()
    connection.settimeout(30)
    with contextlib.suppress(OSError), connection:
        if attack.waits:
            if attack.tls:
                connection = tls().wrap_socket(connection, server_side=True)
            attack.asked.append(connection.recv(2**16))
        try:
            if attack.answer(connection.sendall):
                _drain(connection)
        finally:
            attack.spent.append(time.monotonic() - start)
        connection.shutdown(socket.SHUT_WR)
        _drain(connection)  # closing it now could lose what was sent


def _drain(connection: socket.socket) -> None:
    """Returns when the client has closed the connection."""
    while connection.recv(2**16):
        pass

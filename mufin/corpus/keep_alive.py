"""GET requests on a connection that stays open, at a fraction of what requests spends on each.

requests, urllib3 and http.client make dozens of objects per request, and read the head of every
answer as an e-mail. Here an answer is read directly if it is as plain as those of image servers
are: its head came at once, and says the length of a body that is not encoded. Any other answer is
given to http.client and urllib3 as it came, byte for byte, and means what it meant there.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import select
from collections.abc import Mapping
from typing import Protocol

import urllib3
from urllib3.connection import HTTPConnection

PART = 2**16  # bytes that are received at once
HEAD = re.compile(
    rb"HTTP/1\.1 ([2-5]\d\d)(?: [^\r\n]*)?\r\n((?:[A-Za-z0-9-]+:[^\r\n\0]*\r\n){0,60})\r\n"
)
# Fields that say where the body ends, how it is encoded, and whether the connection stays open.
# With two of a name, or one of the first two, an answer is not plain.
ENCODED = ("transfer-encoding", "content-encoding")
DECIDE = {*ENCODED, "content-length", "connection", "location", "retry-after"}
WITHOUT_BODY = (204, 304)
REDIRECTS = (301, 302, 303, 307, 308)


class Answer(Protocol):
    """An answer whose body is not read: urllib3's `HTTPResponse` is one."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """Ask for names in lower case."""

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """The bytes of the body that came, at most `amt` and 64 KB; b'' at its end."""

    def close(self) -> None:
        """Ends the answer; the connection too, unless the body was read."""


def redirects(answer: Answer) -> bool:
    """Whether an answer leads to another URL, in its header Location."""
    return answer.status in REDIRECTS and "location" in answer.headers


class BoundedSocket(Protocol):
    """What is needed of the sockets of `connections`."""

    def recv(self, size: int) -> bytes: ...

    def unread(self, data: bytes) -> None:
        """`recv_into` gives these bytes first; `recv` does not."""

    def pending(self) -> int:
        """Bytes that TLS has decrypted and no reader has got, which a poll does not see."""


class KeepAlive:
    """A connection to one host, made when it is needed; for one thread."""

    def __init__(self, connection: HTTPConnection, fields: Mapping[str, str]):
        """`fields` are the header of each request, without Host."""
        self.connection = connection
        host = connection.host
        if connection.port != connection.default_port:
            host = f"{host}:{connection.port}"
        lines = [f"{name}: {value}\r\n" for name, value in {"Host": host, **fields}.items()]
        self.rest = f" HTTP/1.1\r\n{''.join(lines)}\r\n".encode("latin-1")
        self.poll: select.poll | None = None  # of the socket, while it is open

    def get(self, target: str) -> Answer:
        """The answer to a GET request for `target`, a path with its query, in ASCII.

        Raises OSError and what urllib3 raises; then the connection is closed.
        """
        request = b"GET " + target.encode("ascii") + self.rest
        try:
            return self._answer(self._exchanged(request))
        except http.client.HTTPException as error:
            self.close()
            raise urllib3.exceptions.ProtocolError(str(error)) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.poll = None
        self.connection.close()

    def _exchanged(self, request: bytes) -> bytes:
        """The begin of the answer, b'' if the host closes the connection without one.

        A host may close a connection that was in use before, at any time, also as the request is on
        its way. So the request is sent once more then, by a new connection (RFC 9112, Sec. 9.3.1).
        """
        # What comes before the request was not asked for: it could pass for the answer.
        if self.poll is not None and not self.poll.poll(0) and not self._socket().pending():
            with contextlib.suppress(ConnectionError):
                self.connection.sock.sendall(request)
                if data := self.connection.sock.recv(PART):
                    return data
        self.close()
        self.connection.connect()
        self.poll = select.poll()
        self.poll.register(self.connection.sock, select.POLLIN)
        self.connection.sock.sendall(request)
        return self.connection.sock.recv(PART)

    def _socket(self) -> BoundedSocket:
        return self.connection.sock  # type: ignore[return-value]  # of `connections`

    def _answer(self, data: bytes) -> Answer:
        sock = self._socket()
        found = HEAD.match(data)
        headers = _plain(found) if found else None
        if found is None or headers is None:
            sock.unread(data)
            return OddAnswer(self)
        return PlainAnswer(self, sock, int(found[1]), headers, data[found.end() :])


def _plain(head: re.Match[bytes]) -> dict[str, str] | None:
    """The fields of a head, names in lower case; None if the answer is not plain."""
    fields: dict[str, str] = {}
    for line in head[2].decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name = name.lower()
        if name in fields and name in DECIDE:
            return None
        fields[name] = value.strip(" \t")
    length = fields.get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) <= 18):
        return None
    if any(name in fields for name in ENCODED) or int(head[1]) in WITHOUT_BODY:
        return None
    return fields


class PlainAnswer:
    """An answer of which the length is known, its body not encoded."""

    def __init__(
        self,
        kept: KeepAlive,
        sock: BoundedSocket,
        status: int,
        headers: dict[str, str],
        first: bytes,
    ):
        """`first` is what came with the head."""
        self.kept, self.sock, self.status, self.headers = kept, sock, status, headers
        self.left = int(headers["content-length"])  # bytes that were not read
        self.first = first[: self.left]
        # What comes behind the body was not asked for: it could pass for the next answer.
        self.ends = len(first) > self.left or headers.get("connection", "").lower() not in (
            "",
            "keep-alive",
        )

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """See `Answer`."""
        if not self.left:
            return b""
        part, self.first = self.first or self.sock.recv(min(self.left, PART)), b""
        if not part:
            raise ConnectionError("the connection ended in the middle of an answer")
        self.left -= len(part)
        return part

    def close(self) -> None:
        """See `Answer`."""
        if self.ends or self.left > len(self.first):
            self.kept.close()


class OddAnswer:
    """Any answer, read by http.client and urllib3 as if they had sent the request."""

    def __init__(self, kept: KeepAlive):
        self.kept = kept
        self.parsed = http.client.HTTPResponse(kept.connection.sock, method="GET")
        self.parsed.begin()
        self.answer = urllib3.HTTPResponse(
            self.parsed,
            urllib3.HTTPHeaderDict(self.parsed.msg.items()),
            self.parsed.status,
            preload_content=False,
            decode_content=False,
            original_response=self.parsed,
            request_method="GET",
        )
        self.status, self.headers = self.answer.status, self.answer.headers

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """See `Answer`."""
        try:
            return self.answer.read1(amt, decode_content)
        except BaseException:  # urllib3 closes the answer then, as if its body had been read
            self.kept.close()
            raise

    def close(self) -> None:
        """See `Answer`."""
        whole = self.parsed.isclosed() and not self.parsed.will_close
        self.answer.close()
        if not whole:
            self.kept.close()

"""uvicorn's HTTP/1.1 with bounds on idle callers: a head that does not come, an unread answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from mufin.serving.web.refusals import answer, busy

HEAD_SECONDS = 15.0  # from the connection, or the first byte of a request, to the end of its head
UNREAD_MS = 30_000  # that a caller may leave an answer unread
BROKEN = json.dumps({"error": "this is no HTTP request", "field": None}).encode()


async def _full(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of a connection beyond the limit."""
    refusal = busy("there are too many connections; try again later")
    refusal.headers["Connection"] = "close"
    await answer(refusal)(scope, receive, send)


class Protocol(H11Protocol):
    """Closes a connection whose request does not come, or whose answer is not read.

    uvicorn waits for ever. Beyond `limit_concurrency` connections it answers with a text; here it
    is JSON with Retry-After.
    """

    head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            self.app = _full
        self.limit_concurrency = None
        # asyncio does it for sockets of protocol TCP alone, and that of `create_server` is 0.
        # Without it, an answer waits 40 ms for the caller's acknowledgement of its first part.
        connection = transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):  # AttributeError: not Linux
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        self._watch()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._unwatch()
        # A part of a head: uvicorn stopped the clock of the idle connection.
        elif self.head is None and self.conn.their_state is h11.IDLE:
            self._watch()

    def on_response_complete(self) -> None:
        before = self.cycle
        super().on_response_complete()
        # A part of the next head came before this answer was done
        if self.head is None and self.cycle is before and self.conn.trailing_data[0]:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """As JSON, like every other error."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(BROKEN)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state is h11.IDLE:  # not inside of an answer
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=BROKEN),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        self.head = self.loop.call_later(HEAD_SECONDS, self._close)

    def _unwatch(self) -> None:
        if self.head is not None:
            self.head.cancel()
            self.head = None

    def _close(self) -> None:
        self.head = None
        if not self.transport.is_closing():
            self.transport.close()

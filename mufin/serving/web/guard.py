"""What happens to every request before and after its route: key, limits, time, errors, metrics."""

from __future__ import annotations

import asyncio
import logging
import math
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mufin.serving.web import auth
from mufin.serving.web.limits import Settings
from mufin.serving.web.metrics import Metrics
from mufin.serving.web.refusals import Refusal, answer, busy, failed, late

logger = logging.getLogger("mufin.serve")
DEADLINE = "mufin.deadline"  # name in the scope of a request; of time.monotonic()
TIMEOUT = b"x-request-timeout"  # header: seconds after which the caller needs no answer
MODEL = ("POST", "/v1/model")
SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
POLICY = b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"


class Guard:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self.app, self.settings, self.metrics = app, settings, metrics
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        reply = _Reply(send)
        start = time.monotonic()
        self.under_way += 1
        self.metrics.under_way.inc()
        try:
            await self._answered(scope, receive, reply, start)
        finally:
            self.under_way -= 1
            self.metrics.under_way.dec()
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, reply.status).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - start)

    async def _answered(self, scope: Scope, receive: Receive, reply: _Reply, start: float) -> None:
        """The route's answer, or that of what went wrong."""
        try:
            headers = dict(scope["headers"])
            auth.check(scope["method"], scope["path"], headers, self.settings.key)
            if self.under_way > self.settings.requests and scope["path"] not in auth.ALWAYS_OPEN:
                raise busy(f"{self.under_way - 1} requests are under way; try again later")
            seconds = self._seconds(scope, headers)
            scope[DEADLINE] = start + seconds
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + seconds):
                await self.app(scope, receive, reply)
        except TimeoutError:
            await self._refuse(late(), scope, receive, reply)
        except Refusal as refusal:
            await self._refuse(refusal, scope, receive, reply)
        except Exception:
            logger.exception("%s %s failed", scope["method"], ascii(scope["path"][:200]))
            await self._refuse(failed(), scope, receive, reply)

    def _seconds(self, scope: Scope, headers: dict[bytes, bytes]) -> float:
        """How long this request may take; a caller may ask for less."""
        most = self.settings.seconds
        if (scope["method"], scope["path"]) == MODEL:
            most = self.settings.load_seconds
        if (asked := headers.get(TIMEOUT)) is None:
            return most
        try:
            seconds = float(asked)
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise Refusal(400, "the header X-Request-Timeout must be a number of seconds above 0")
        return min(seconds, most)

    async def _refuse(
        self, refusal: Refusal, scope: Scope, receive: Receive, reply: _Reply
    ) -> None:
        if reply.status != "none":
            raise RuntimeError("an answer that had begun ended early")  # closes the connection
        await answer(refusal)(scope, receive, reply)


class _Reply:
    """`send` of a request, which notes the status and adds headers."""

    def __init__(self, send: Send):
        self.send, self.status = send, "none"

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = str(message["status"])
            headers = list(message.get("headers", ()))
            given = {name for name, _ in headers}
            headers += [pair for pair in SECURITY if pair[0] not in given]
            if b"content-security-policy" not in given:
                headers.append((b"content-security-policy", POLICY))
            if b"cache-control" not in given:
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await self.send(message)

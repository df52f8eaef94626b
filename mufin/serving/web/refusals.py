"""Errors that a caller sees: a status, one sentence, and the field that is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from mufin.errors import sentence

LATER = {"Retry-After": "1"}  # seconds; a queue is worked off in less


class Refusal(Exception):
    """A request that is not answered as it is."""

    def __init__(
        self,
        status: int,
        text: str,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(text)
        self.status, self.text, self.field = status, text, field
        self.headers = dict(headers or {})

    def at(self, where: str) -> Refusal:
        """The same one, its field inside of another."""
        field = f"{where}.{self.field}" if self.field else where
        return Refusal(self.status, self.text, field, self.headers)


def busy(text: str) -> Refusal:
    return Refusal(503, text, headers=LATER)


def late() -> Refusal:
    return Refusal(504, "the request was not answered in its time; try again later")


def failed() -> Refusal:
    return Refusal(500, "the server failed at this request; its log says why")


def error_content(text: str, field: str | None) -> dict:
    return {"error": sentence(text), "field": None if field is None else field[:200]}


def answer(refusal: Refusal) -> Response:
    return json_response(
        error_content(refusal.text, refusal.field), refusal.status, refusal.headers
    )


def json_response(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON in ASCII: a caller's text that is not UTF-8 cannot break it."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")

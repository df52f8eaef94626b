"""Bodies of requests: bytes that are counted as they come, JSON, and forms with files."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import python_multipart
from python_multipart.multipart import Field, File, parse_options_header
from starlette.requests import ClientDisconnect, Request

from mufin.errors import shown
from mufin.serving.web.limits import IMAGES, VALUES_OF_BODY, Settings
from mufin.serving.web.refusals import Refusal, busy
from mufin.serving.web.schemas import M, validated

LARGE = 2**16  # bytes that are parsed outside of the event loop
# Bytes and seconds that are read and thrown away behind a body that is too large: a client that
# writes all of it before it reads would else find a broken connection in place of the answer.
DISCARDED, DISCARDING = 16 * 2**20, 2.0
T = TypeVar("T")
JSON, FORM = "application/json", "multipart/form-data"


@dataclass
class Held:
    """Bytes of all bodies that are in memory."""

    most: int
    now: int = 0


@dataclass
class Parsed:
    """A body: its JSON, and the files of a form."""

    content: object
    files: list[bytes] = field(default_factory=list)


class Body:
    """Reads the body of a request; as a context, it counts as held until the end."""

    def __init__(self, request: Request, settings: Settings, held: Held):
        self.request, self.settings, self.held = request, settings, held
        self.size = 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *error: object) -> None:
        self.held.now -= self.size

    async def parsed(self, part: str | None = None) -> Parsed:
        """JSON, or if `part` is given, also a form whose field `part` is JSON.

        Raises Refusal: 400, 413, 415 or 503.
        """
        kind, options = parse_options_header(self.request.headers.get("content-type", ""))
        name = kind.decode("latin-1").lower()
        if name != JSON and not (part and name == FORM):
            also = f" or {FORM}" if part else ""
            raise Refusal(415, f"the Content-Type is {shown(name)}; it must be {JSON}{also}")
        encoding = self.request.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise Refusal(415, f"the Content-Encoding is {shown(encoding)}; send the body as it is")
        content = await self._content()
        if name == JSON:
            return Parsed(await _aside(len(content), parse_json, content, "the body"))
        return await _aside(len(content), _parse_form, content, options.get(b"boundary"), part)

    async def valid(self, model: type[M], content: object) -> M:
        """The JSON of this body as a model; raises Refusal (422)."""
        return await _aside(self.size, validated, model, content)

    async def _content(self) -> bytes:
        most = self.settings.body_bytes
        length = self.request.headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > most + DISCARDED):
            raise self._too_large()
        chunks = bytearray()
        stream = self.request.stream()
        try:
            async for chunk in stream:
                if len(chunks) + len(chunk) > most:
                    await _discard(stream)
                    raise self._too_large()
                if self.held.now + len(chunk) > self.held.most:
                    raise busy("too many bytes of other requests are held; try again later")
                self.held.now += len(chunk)
                self.size += len(chunk)
                chunks += chunk
        except ClientDisconnect:
            raise Refusal(400, "the connection ended inside of the body") from None
        return bytes(chunks)

    def _too_large(self) -> Refusal:
        text = f"the body has more than {self.settings.body_bytes:,} bytes; send fewer pictures"
        return Refusal(413, text, headers={"Connection": "close"})


async def _discard(stream: AsyncIterator[bytes]) -> None:
    size, end = 0, time.monotonic() + DISCARDING
    async for chunk in stream:
        size += len(chunk)
        if size > DISCARDED or time.monotonic() > end:
            return


async def _aside(size: int, function: Callable[..., T], *args: Any) -> T:
    """The function's result; what takes long does not stop other requests."""
    if size > LARGE:
        return await asyncio.to_thread(function, *args)
    return function(*args)


def parse_json(content: bytes, name: str) -> object:
    """The value; raises Refusal (400) if these bytes are no JSON of RFC 8259 in UTF-8.

    And 413 if they are JSON of too many values for the memory.
    """
    if sum(map(content.count, b",[{")) > VALUES_OF_BODY:
        raise Refusal(413, f"{name} has more than {VALUES_OF_BODY:,} values; send fewer")
    try:
        return json.loads(content.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"{name} is not UTF-8 (byte {error.start}); write it in UTF-8") from None
    except json.JSONDecodeError as error:
        text = f"{name} is not JSON ({error.msg} at character {error.pos}); correct it"
        raise Refusal(400, text) from None
    except RecursionError:
        raise Refusal(400, f"{name} is JSON with too many levels; use fewer") from None
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise Refusal(400, f"{name} is not JSON ({error}); correct it") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _parse_form(content: bytes, boundary: bytes | None, part: str) -> Parsed:
    """The JSON of the field `part`, {} without it, and the files `images`."""
    form = _Form(part)
    config = {"MAX_MEMORY_FILE_SIZE": len(content) + 1}
    try:
        parser = python_multipart.FormParser(
            FORM, form.add, form.add, form.end, boundary=boundary, config=config
        )
        parser.write(content)
        parser.finalize()
    except Refusal:
        raise
    except Exception:  # the parser raises several classes, also AssertionError
        raise Refusal(400, f"the body is not {FORM} as its header says; correct it") from None
    if not form.ended:
        raise Refusal(400, f"the body is not whole {FORM}: its last boundary is missing")
    return Parsed({} if form.json is None else parse_json(form.json, part), form.files)


class _Form:
    """What the parser has found."""

    def __init__(self, part: str):
        self.part, self.ended = part, False
        self.json: bytes | None = None
        self.files: list[bytes] = []

    def end(self) -> None:
        self.ended = True

    def add(self, found: Field | File) -> None:
        name = (found.field_name or b"").decode("ascii", "backslashreplace")
        content = found.value or b"" if isinstance(found, Field) else _read(found)
        if name == self.part and self.json is None:
            self.json = content
        elif name == "images" and isinstance(found, File):
            if len(self.files) >= IMAGES:
                raise Refusal(422, f"there are more than {IMAGES} images; send fewer", "images")
            self.files.append(content)
        else:
            text = f"the form has a field {shown(name)}; it may have one {self.part}, and images"
            raise Refusal(422, f"{text} as files", name)


def _read(file: File) -> bytes:
    file.file_object.seek(0)
    return file.file_object.read()

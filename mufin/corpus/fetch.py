"""Pictures from URLs and files, within limits; and whole files from URLs.

A picture that cannot be fetched is not an error: `Fetcher.fetch` returns the reason. Only
`Fetcher.save`, for the files of the catalog itself, raises one.

The catalog may come from someone who is not trusted. So a URL must not lead to a private address, a
path must not lead out of the catalog's folder, and no answer may fill the memory or block the run.
"""

from __future__ import annotations

import contextlib
import errno
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from mufin.artifacts.publication import sync
from mufin.corpus.catalog_folder import CatalogFolder
from mufin.corpus.connections import Exchange, Session, exchange, reachable
from mufin.corpus.formats import refusal
from mufin.corpus.hosts import Network, Place
from mufin.corpus.keep_alive import Answer, redirects
from mufin.corpus.reasons import (
    NO_CONNECTION,
    NOT_URL,
    PRIVATE,
    RETRIED,
    TIMED_OUT,
    TOO_LARGE,
    TOO_MANY_REDIRECTS,
    Failed,
    Refused,
)
from mufin.errors import MufinError
from mufin.progress import progress

LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is cut to this
TOTAL = 10  # a request may take TOTAL * timeout seconds, and each step of it `timeout` seconds
SLOWEST = 2**20  # bytes of a whole file that must arrive per TOTAL * timeout seconds
PORTS = {"http": 80, "https": 443}
PLAIN = re.compile(r"(https?)://([a-z0-9.-]{1,253})(?::([1-9][0-9]{0,4}))?(?=/)")
NOT_IN_URLS = dict.fromkeys(map(ord, "\t\r\n"))  # browsers take these out
# Errors of the local disk. They end the run: another try or another URL would meet them again.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of section `download` that bound a fetch."""

    timeout: float  # seconds to find the host, to connect, and between two parts of an answer
    max_bytes: int  # of a picture
    retries: int  # more tries after the first
    per_host: int  # requests to one host at once
    max_redirects: int
    private_addresses: bool  # whether private and loopback addresses may be reached
    user_agent: str  # how requests name themselves

    def terms(self) -> str:
        """Those of the settings that decide whether a server gives a picture that is taken."""
        terms = (self.max_bytes, self.max_redirects, self.private_addresses, self.user_agent)
        return " ".join(map(str, terms))


# A function of an HTTP answer: returns (None, content), or (next URL, b"") to continue there.
Take = Callable[[Answer, Exchange], tuple[str | None, bytes]]


class Fetcher:
    """Fetches references, one per call, for many threads at once.

    A reference is a URL or the path of a file under `root` (see `CatalogFolder`).
    """

    def __init__(self, limits: Limits, root: Path | None = None, marked: bool = False):
        self.limits, self.folder = limits, CatalogFolder(root, marked)
        self.network = Network(
            limits.per_host,
            lambda place: reachable(*place, limits.timeout, not limits.private_addresses),
        )
        self.local = threading.local()

    def fetch(self, reference: str) -> tuple[bytes, str]:
        """(bytes, '') of the picture, or (b'', reason); MufinError if the network is lost."""
        try:
            if is_url(reference):
                url = url_of(reference)
                content = self._with_retries(lambda: self._follow(url, self._picture))
            else:
                content = self.folder.read(reference, self.limits.max_bytes)
            reason = refusal(content)  # Content-Type is not looked at: servers often get it wrong
            return (b"", reason) if reason else (content, "")
        except (Refused, Failed) as error:
            return b"", str(error)
        except ValueError:
            return b"", NOT_URL

    def save(self, url: str, target: Path, page: Callable[[str], str] | None = None) -> Path:
        """`target`, which holds the whole file at `url`, of any size.

        A file that is there already is not fetched again, and an earlier incomplete try is
        continued. `page` turns a web page that comes in place of the file into the URL of the file.
        Raises MufinError.
        """
        part = target.with_name(target.name + ".part")

        def once() -> bytes:
            have = part.stat().st_size if part.exists() else 0

            def take(answer: Answer, now: Exchange) -> tuple[str | None, bytes]:
                return self._append(answer, now, part, have, page)

            return self._follow(url, take, _resuming(part, have))

        try:
            if not target.exists():
                self._with_retries(once)
                sync(part)
                part.rename(target)
                sync(target.parent)
                _version(part).unlink(missing_ok=True)
            return target
        except Failed as error:
            raise MufinError(
                f"{url} cannot be fetched ({error}); run again to continue where it stopped, "
                "or set download.location to a local copy"
            ) from None
        except (Refused, ValueError) as error:
            why = str(error) if isinstance(error, Refused) else NOT_URL
            remedy = "correct download.location, or set it to a local copy"
            if why == PRIVATE:
                remedy = "set download.private_addresses to true if this is intended"
            raise MufinError(f"{url} cannot be fetched ({why}); {remedy}") from None

    def _with_retries(self, ask: Callable[[], bytes]) -> bytes:
        """The result of `ask`, tried again after Failed, with waits that double from try to try."""
        for attempt in range(self.limits.retries + 1):
            try:
                return ask()
            except Failed as error:
                if attempt == self.limits.retries:
                    self.network.failed(error)
                    raise
                # Random, so that many threads do not come back at the same moment.
                backoff = 0.5 * 2**attempt * (0.5 + random.random())
                time.sleep(min(max(error.after, backoff), LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _follow(self, url: str, take: Take, headers: dict[str, str] | None = None) -> bytes:
        """What `take` returns for the answer at the end of the redirects.

        Redirects are followed here and not by requests, so that each new URL passes the same
        checks.
        """
        for _ in range(self.limits.max_redirects + 1):
            with self.network.request(_asked(url)):
                target, content = self._get(url, take, headers or {})
            if target is None:
                return content
            url = urljoin(url, target)
        raise Refused(TOO_MANY_REDIRECTS)

    def _get(self, url: str, take: Take, headers: dict[str, str]) -> tuple[str | None, bytes]:
        """One request: what `take` makes of its answer; raises Refused or Failed."""
        limits = self.limits
        now = exchange(limits.timeout, TOTAL * limits.timeout, not limits.private_addresses)
        try:
            return self._taken(now, url, take, headers)
        except (TimeoutError, requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError):
            raise Failed(TIMED_OUT) from None
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
            UnicodeError,
        ):
            raise Refused(NOT_URL) from None
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            # `take` writes to disk, and a full disk is an OSError like a broken connection.
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            raise Failed(NO_CONNECTION) from None

    def _taken(
        self, now: Exchange, url: str, take: Take, headers: dict[str, str]
    ) -> tuple[str | None, bytes]:
        """What `take` makes of an answer; its connection is closed if its body is not read."""
        try:
            with contextlib.closing(
                self._session().get(url, headers, self.limits.timeout)
            ) as answer:
                if redirects(answer):
                    return _location(answer), b""
                _check_status(answer, partial="Range" in headers)
                return take(answer, now)
        finally:
            if now.received:
                self.network.answered(place_of(url))

    def _picture(self, answer: Answer, now: Exchange) -> tuple[str | None, bytes]:
        return None, self._body(answer, now)

    def _body(self, answer: Answer, now: Exchange) -> bytes:
        """The body of a picture's answer, decoded; raises Refused beyond the limits."""
        length = answer.headers.get("content-length", "").strip()
        if length.isdecimal() and (len(length) > 18 or int(length) > self.limits.max_bytes):
            raise Refused(TOO_LARGE)
        now.allow(self.limits.max_bytes)
        parts, size = [], 0
        # `read1` returns what has arrived. `read` would hold the answer twice.
        while part := answer.read1(2**16, decode_content=True):
            size += len(part)
            if size > self.limits.max_bytes:
                raise Refused(TOO_LARGE)
            parts.append(part)
        return b"".join(parts)

    def _append(
        self,
        answer: Answer,
        now: Exchange,
        part: Path,
        have: int,
        page: Callable[[str], str] | None,
    ) -> tuple[str | None, bytes]:
        """A `Take`: write the body into `part`, behind the `have` bytes that are there.

        From the start if the server sends the whole file (status 200), as it does if the file has
        changed since.
        """
        if "text/html" in answer.headers.get("content-type", "").lower():
            if page is None:
                raise Refused("a web page instead of the file")
            return page(self._body(answer, now).decode(errors="replace")), b""
        said, status = answer.headers.get("content-range", ""), answer.status
        if status == 416 and said == f"bytes */{have}":  # nothing is missing
            return None, b""
        if status != 200 and not said.startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise Failed("not the part that was asked for")
        if status == 200:
            tag = answer.headers.get("etag") or answer.headers.get("last-modified") or ""
            _version(part).write_text(tag)
        with open(part, "ab" if status == 206 else "wb") as file:
            for _ in progress(self._megabytes(answer, now, file), f"fetch {part.stem}", "MB"):
                pass
        return None, b""

    def _megabytes(self, answer: Answer, now: Exchange, file: BinaryIO) -> Iterator[int]:
        """Writes the body as it comes, without decoding it, and yields after each megabyte.

        Raises TimeoutError if less than SLOWEST bytes arrive in TOTAL * timeout seconds.
        """
        size = told = 0
        now.allow(2 * SLOWEST, TOTAL * self.limits.timeout)
        due = SLOWEST
        while piece := answer.read1(2**18, decode_content=False):
            file.write(piece)
            size += len(piece)
            if size >= due:
                now.allow(2 * SLOWEST, TOTAL * self.limits.timeout)
                due = size + SLOWEST
            while told < size >> 20:
                yield (told := told + 1)

    def _session(self) -> Session:
        """The session of this thread, whose connections are reused."""
        if not hasattr(self.local, "session"):
            # A proxy often has a private address itself, and it could connect to others for us. So
            # the proxies of the environment are used only if private addresses are allowed.
            self.local.session = Session(
                environment=self.limits.private_addresses, user_agent=self.limits.user_agent
            )
        return self.local.session


def _asked(url: str) -> Place:
    """The host and port that are asked for a URL; Refused if it is not one of http or https."""
    if PLAIN.match(url) is None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused("redirect to another scheme")
    return place_of(url)


def place_of(url: str) -> Place:
    """The host and the port that a URL names; raises ValueError if it is not a URL of a host."""
    if found := PLAIN.match(url):  # a fifth of the time
        port = int(found[3]) if found[3] else PORTS[found[1]]
        if port <= 65535:
            return found[2], port
    parts = urlsplit(url_of(url))
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or PORTS.get(parts.scheme, 80)


def is_url(reference: str) -> bool:
    """Whether a reference is an http or https URL; anything else is the path of a file."""
    schemes = ("http://", "https://")
    return reference.startswith(schemes) or url_of(reference[:100]).lower().startswith(schemes)


def url_of(reference: str) -> str:
    """The URL that a browser would ask for: without blanks around it, and line breaks in it.

    `//host/path` is one of https. What else a URL must not have, such as blanks and letters that
    are not ASCII, requests writes with percent signs.
    """
    url = reference.strip().translate(NOT_IN_URLS)
    return f"https:{url}" if url.startswith("//") else url


def _location(answer: Answer) -> str:
    """Where a redirect leads; like browsers, it is read as UTF-8 if it can be."""
    location = answer.headers["location"]
    with contextlib.suppress(UnicodeError):
        return location.encode("latin-1").decode()
    return location


def _check_status(answer: Answer, partial: bool) -> None:
    """Raises Failed for a temporary HTTP status and Refused for any other but success.

    With `partial`, a part of the file (206) and nothing left of it (416) are successes too.
    """
    status = answer.status
    if status in RETRIED:
        raise Failed(f"HTTP {status}", _retry_after(answer.headers.get("retry-after")))
    if status not in ((200, 206, 416) if partial else (200,)):
        raise Refused(f"HTTP {status}")


def _version(part: Path) -> Path:
    """The file beside `part` with the ETag or date of the version that `part` was taken from."""
    return part.with_name(part.name + ".version")


def _resuming(part: Path, have: int) -> dict[str, str]:
    """Request headers for the rest of a file of which `part` has the first `have` bytes.

    If-Range makes the server send the whole file if its version has changed since. `identity`
    forbids compression on the way, because byte positions refer to the stored file.
    """
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        version = _version(part).read_text() if _version(part).exists() else ""
        if version and not version.startswith("W/"):  # a weak ETag does not promise equal bytes
            headers["If-Range"] = version
    return headers


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, a number or a date; `LONGEST_WAIT` if it is neither."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return min(float(value), LONGEST_WAIT)
    try:
        seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: a date without a time zone
        return LONGEST_WAIT
    return min(max(seconds, 0.0), LONGEST_WAIT)

"""Pictures from URLs and files, within limits; and whole files from URLs.

A picture that cannot be fetched is not an error: `Fetcher.fetch` returns the reason. Only
`Fetcher.save`, for the files of the catalog itself, raises one.

The catalog may come from someone who is not trusted. So a URL must not lead to a private address, a
path must not lead out of the catalog's folder, and no answer may fill the memory or block the run.
"""

from __future__ import annotations

import errno
import io
import ipaddress
import random
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import requests
import urllib3
from PIL import Image
from requests.adapters import HTTPAdapter

from mufin.errors import MufinError
from mufin.progress import progress

RETRIED = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may be temporary
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is cut to this
LONGEST_PAUSE = 600.0  # seconds that a host may ask for in total between two good answers
TOTAL = 10  # an answer may take TOTAL * timeout seconds, and its next bytes `timeout` seconds
SLOWEST = 2**20  # bytes of a whole file that must arrive per TOTAL * timeout seconds
# Errors of the local disk. They end the run: another try or another URL would meet them again.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
MARK = "/./"  # in `<folder>/./<path>`: separates the folder from the path in it
PRIVATE = "private or loopback address"


class Refused(Exception):
    """A reference gives no picture, and another try would not help; the text is the reason."""


class Failed(Exception):
    """A try gave no picture, but another may; the host asks to wait `after` seconds before it."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of section `download` that bound a fetch."""

    timeout: float  # seconds to connect, and between two parts of an answer
    max_bytes: int  # of a picture
    retries: int  # more tries after the first
    per_host: int  # requests to one host at once
    max_redirects: int
    private_addresses: bool  # whether private and loopback addresses may be reached


# Private addresses. A check of the host name before the request would not be enough: the name can
# resolve to another address a moment later, when the connection is made. So the check is made on
# the connected socket, before a byte is sent.


def _public(connected: socket.socket) -> socket.socket:
    """The socket; closes it and raises Refused if its peer does not have a public address."""
    address = connected.getpeername()[0]
    if not ipaddress.ip_address(address.partition("%")[0]).is_global:  # without the IPv6 zone
        connected.close()
        raise Refused(PRIVATE)
    return connected


class _Http(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _public(super()._new_conn())


class _Https(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _public(super()._new_conn())


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class _PublicOnly(HTTPAdapter):
    """An adapter of requests whose connections go to public addresses only."""

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class _Host:
    """Limits the requests to one host: `per_host` at once, none in a pause that it asked for."""

    def __init__(self, per_host: int):
        self.slots, self.lock = threading.Semaphore(per_host), threading.Lock()
        self.until = 0.0  # end of the pause, on the monotonic clock
        self.paused = 0.0  # seconds of pauses since the last good answer

    def pause(self, seconds: float) -> None:
        with self.lock:
            now = time.monotonic()
            # Pauses of several requests overlap; only what one adds to the end counts.
            self.paused += max(now + seconds - max(self.until, now), 0.0)
            self.until = max(self.until, now + seconds)

    def wait(self) -> None:
        """Return when the pause is over; raise Refused if the host has asked for too many."""
        if self.paused > LONGEST_PAUSE:
            raise Refused("the host asks to wait again and again")
        while (left := self.until - time.monotonic()) > 0:
            time.sleep(left)


# A function of an HTTP answer: returns (None, content), or (next URL, b"") to continue there.
Take = Callable[[requests.Response], tuple[str | None, bytes]]


class Fetcher:
    """Fetches references, one per call, for many threads at once.

    A reference is a URL or the path of a file under `root`; without `root`, paths are refused. If
    `marked`, a path begins with its own folder under `root`, up to `MARK`, and must stay in it.
    """

    def __init__(self, limits: Limits, root: Path | None = None, marked: bool = False):
        self.limits, self.root, self.marked = limits, root.resolve() if root else None, marked
        self.hosts: dict[str, _Host] = {}
        self.lock, self.local = threading.Lock(), threading.local()

    def fetch(self, reference: str) -> tuple[bytes, str]:
        """(bytes, '') of the picture, or (b'', reason)."""
        try:
            if is_url(reference):
                content = self._with_retries(
                    lambda: self._follow(reference, lambda answer: (None, self._body(answer)))
                )
            else:
                content = self._file(*self._place(reference))
            return checked_picture(content), ""
        except (Refused, Failed) as error:
            return b"", str(error)
        except ValueError:
            return b"", "not a URL"

    def save(self, url: str, target: Path, page: Callable[[str], str] | None = None) -> Path:
        """`target`, which holds the whole file at `url`, of any size.

        A file that is there already is not fetched again, and an earlier incomplete try is
        continued. `page` turns a web page that comes in place of the file into the URL of the file.
        Raises MufinError.
        """
        part = target.with_name(target.name + ".part")

        def once() -> bytes:
            have = part.stat().st_size if part.exists() else 0
            return self._follow(
                url, lambda answer: self._append(answer, part, have, page), _resuming(part, have)
            )

        try:
            if not target.exists():
                self._with_retries(once)
                part.rename(target)
                _version(part).unlink(missing_ok=True)
            return target
        except Failed as error:
            raise MufinError(
                f"{url} cannot be fetched ({error}); run again to continue where it stopped, "
                "or set download.location to a local copy"
            ) from None
        except (Refused, ValueError) as error:
            why = str(error) if isinstance(error, Refused) else "not a URL"
            remedy = "correct download.location, or set it to a local copy"
            if why == PRIVATE:
                remedy = "set download.private_addresses to true if this is intended"
            raise MufinError(f"{url} cannot be fetched ({why}); {remedy}") from None

    # Files

    def _place(self, reference: str) -> tuple[Path | None, str]:
        """The folder that a path must not leave, None if there is none, and the path in it."""
        folder, mark, path = reference.partition(MARK)
        if not self.marked or self.root is None:
            return self.root, reference
        return (self.root / folder, path) if mark else (None, reference)

    def _file(self, root: Path | None, reference: str) -> bytes:
        """The bytes of a file in the folder `root`, named by a path or a file: URL."""
        scheme = urlsplit(reference).scheme.lower()
        if scheme not in ("", "file"):
            raise Refused(f"scheme {scheme[:20]} is not fetched")
        if root is None:
            raise Refused("path where a URL is needed")
        local = url2pathname(urlsplit(reference).path) if scheme else reference
        try:
            path = (root / local).resolve()  # follows symbolic links and .. before the check
        except RuntimeError:  # before Python 3.13: links in a circle
            raise Refused("no such file") from None
        if not path.is_relative_to(root):
            raise Refused("path outside the catalog's folder")
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
                raise Refused("no such file")
            if status.st_size > self.limits.max_bytes:
                raise Refused("too many bytes")
            return path.read_bytes()
        except (OSError, ValueError):
            raise Refused("no such file") from None

    # URLs

    def _with_retries(self, ask: Callable[[], bytes]) -> bytes:
        """The result of `ask`, tried again after Failed, with waits that double from try to try."""
        for attempt in range(self.limits.retries + 1):
            try:
                return ask()
            except Failed as error:
                if attempt == self.limits.retries:
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
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise Refused("redirect to another scheme")
            host = self._host(parts.hostname)
            with host.slots:
                host.wait()
                try:
                    target, content = self._get(url, take, headers or {})
                except Failed as error:
                    host.pause(error.after)  # for all requests to this host, not for this URL alone
                    raise
                except Refused:
                    host.paused = 0.0
                    raise
                host.paused = 0.0
            if target is None:
                return content
            url = urljoin(url, target)
        raise Refused("too many redirects")

    def _get(self, url: str, take: Take, headers: dict[str, str]) -> tuple[str | None, bytes]:
        """One request: what `take` makes of its answer; raises Refused or Failed."""
        try:
            with self._session().get(
                url,
                stream=True,
                allow_redirects=False,
                timeout=self.limits.timeout,
                headers=headers,
            ) as answer:
                if answer.is_redirect:
                    return answer.headers["Location"], b""
                _check_status(answer, partial="Range" in headers)
                return take(answer)
        except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError):
            raise Failed("timed out") from None
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
            UnicodeError,
        ):
            raise Refused("not a URL") from None
        except (
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
        ) as error:
            # `take` writes to disk, and a full disk is an OSError like a broken connection.
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            raise Failed("connection failed") from None

    def _body(self, answer: requests.Response) -> bytes:
        """The body of a picture's answer, decoded; raises Refused or Failed beyond the limits."""
        length = answer.headers.get("Content-Length", "").strip()
        if length.isdecimal() and int(length) > self.limits.max_bytes:
            raise Refused("too many bytes")
        parts, size, end = [], 0, time.monotonic() + TOTAL * self.limits.timeout
        # `read1` returns what has arrived. `read` would wait for the full amount, so a server that
        # sends a byte now and then could hold it for ever without a timeout.
        while part := answer.raw.read1(2**16, decode_content=True):
            size += len(part)
            if size > self.limits.max_bytes:
                raise Refused("too many bytes")
            if time.monotonic() > end:
                raise Failed("timed out")
            parts.append(part)
        return b"".join(parts)

    def _append(
        self, answer: requests.Response, part: Path, have: int, page: Callable[[str], str] | None
    ) -> tuple[str | None, bytes]:
        """A `Take`: write the body into `part`, behind the `have` bytes that are there.

        From the start if the server sends the whole file (status 200), as it does if the file has
        changed since.
        """
        if "text/html" in answer.headers.get("Content-Type", "").lower():
            if page is None:
                raise Refused("a web page instead of the file")
            return page(self._body(answer).decode(errors="replace")), b""
        said, status = answer.headers.get("Content-Range", ""), answer.status_code
        if status == 416 and said == f"bytes */{have}":  # nothing is missing
            return None, b""
        if status != 200 and not said.startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise Failed("not the part that was asked for")
        if status == 200:
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            _version(part).write_text(tag)
        with open(part, "ab" if status == 206 else "wb") as file:
            for _ in progress(self._megabytes(answer, file), f"fetch {part.stem}", "MB"):
                pass
        return None, b""

    def _megabytes(self, answer: requests.Response, file: BinaryIO) -> Iterator[int]:
        """Writes the body as it comes, without decoding it, and yields after each megabyte.

        Raises Failed if less than SLOWEST bytes arrive in a period of TOTAL * timeout seconds.
        """
        size = told = 0
        period = TOTAL * self.limits.timeout
        due, end = SLOWEST, time.monotonic() + period
        while piece := answer.raw.read1(2**18, decode_content=False):
            file.write(piece)
            size += len(piece)
            if time.monotonic() > end:
                if size < due:
                    raise Failed("timed out")
                due, end = size + SLOWEST, time.monotonic() + period
            while told < size >> 20:
                yield (told := told + 1)

    def _session(self) -> requests.Session:
        """The session of this thread, since a requests.Session is not thread-safe."""
        if not hasattr(self.local, "session"):
            session = requests.Session()
            session.headers["User-Agent"] = "mufin-pipeline (product pictures)"
            # A proxy often has a private address itself, and it could connect to others for us. So
            # the proxies of the environment are used only if private addresses are allowed.
            session.trust_env = self.limits.private_addresses
            if not self.limits.private_addresses:
                for prefix in ("http://", "https://"):
                    session.mount(prefix, _PublicOnly())
            self.local.session = session
        return self.local.session

    def _host(self, name: str) -> _Host:
        with self.lock:
            return self.hosts.setdefault(name, _Host(self.limits.per_host))


def is_url(reference: str) -> bool:
    """Whether a reference is an http or https URL; anything else is the path of a file."""
    return reference.lower().startswith(("http://", "https://"))


def _check_status(answer: requests.Response, partial: bool) -> None:
    """Raises Failed for a temporary HTTP status and Refused for any other but success.

    With `partial`, a part of the file (206) and nothing left of it (416) are successes too.
    """
    status = answer.status_code
    if status in RETRIED:
        raise Failed(f"HTTP {status}", _retry_after(answer.headers.get("Retry-After")))
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


def checked_picture(content: bytes) -> bytes:
    """The content, if its first bytes are those of a picture; else raises Refused.

    Content-Type is not looked at: servers often get it wrong.
    """
    if not content:
        raise Refused("empty")
    try:
        with Image.open(io.BytesIO(content)):
            return content
    except Image.DecompressionBombError:
        return content  # the precompute stage drops it, with its own reason
    except Exception:  # Pillow's plugins raise anything on broken headers
        start = content[:200].lstrip().lower()
        html = start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))
        raise Refused("HTML instead of a picture" if html else "not a picture") from None


def fetch_all(
    references: Iterable[str], fetcher: Fetcher, threads: int
) -> Iterator[tuple[str, bytes, str]]:
    """(reference, bytes, reason) of each reference, in the order in which they complete.

    At most 4 * threads of them are under way or waiting, which bounds the memory.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: dict[Future[tuple[bytes, str]], str] = {}
        for reference in references:
            waiting[pool.submit(fetcher.fetch, reference)] = reference
            if len(waiting) >= 4 * threads:
                yield from _completed(waiting)
        while waiting:
            yield from _completed(waiting)


def _completed(waiting: dict[Future[tuple[bytes, str]], str]) -> Iterator[tuple[str, bytes, str]]:
    """Waits for at least one future; removes and yields the results of all that are done."""
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        reference = waiting.pop(future)
        content, reason = future.result()
        yield reference, content, reason

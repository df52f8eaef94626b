"""Pictures from URLs and files: bounded, polite, safe; what fails is a reason, never an exception. And whole files."""

from __future__ import annotations

import errno
import io
import ipaddress
import random
import stat
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, Callable, Iterable, Iterator
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import requests
import urllib3
from PIL import Image
from requests.adapters import HTTPAdapter

from mufin.errors import MufinError
from mufin.progress import progress

AGAIN = {408, 425, 429, 500, 502, 503, 504}  # statuses that may pass
LONGEST_WAIT = 60.0  # seconds; a longer Retry-After is cut to it
LONGEST_PAUSE = 600.0  # seconds a host may ask for in all between two good answers
TOTAL = 10  # times `timeout`: the most one answer may take in all
SLOWEST = 2**20  # bytes of a whole file that must come in that time
FULL = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
}  # the disk's faults, not the network's
MARK = "/./"  # in `<folder>/./<path>`: between the folder that is not left and the path
PRIVATE = "private or loopback address"


class Refused(Exception):
    """This reference gives no picture, and another try would not help; the text is the reason."""


class Failed(Exception):
    """This try gave no picture; another may. `after` seconds are asked for."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True, slots=True)
class Limits:
    """The fields of `params.Download` that bound a fetch."""

    timeout: float
    max_bytes: int
    retries: int
    per_host: int
    max_redirects: int
    private_addresses: bool


class _GuardedConnection:
    """Looks at the address that was really connected to, before a byte is sent: no name can be turned round in between."""

    def _new_conn(self):
        sock = super()._new_conn()
        address = sock.getpeername()[0]
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            sock.close()
            raise Refused(PRIVATE)
        return sock


class _Http(_GuardedConnection, urllib3.connection.HTTPConnection):
    pass


class _Https(_GuardedConnection, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class _PublicOnly(HTTPAdapter):
    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class _Host:
    """What one host is asked: so many requests at once, and none during a pause that it asked for."""

    def __init__(self, per_host: int):
        self.slots, self.lock = threading.Semaphore(per_host), threading.Lock()
        self.until = self.paused = (
            0.0  # end of the pause; seconds of pauses since the last good answer
        )

    def pause(self, seconds: float) -> None:
        with self.lock:
            now = time.monotonic()
            self.paused += max(now + seconds - max(self.until, now), 0.0)
            self.until = max(self.until, now + seconds)

    def wait(self) -> None:
        """Returns when no pause is on; raises Refused for a host that asks for nothing but pauses."""
        if self.paused > LONGEST_PAUSE:
            raise Refused("the host asks to wait again and again")
        while (left := self.until - time.monotonic()) > 0:
            time.sleep(left)


Take = Callable[
    [requests.Response], tuple[str | None, bytes]
]  # of an answer: where to go on, or what is in it


class Fetcher:
    """Fetches one reference at a time for many threads; at most `per_host` requests to a host are under way.

    Paths are those of files under `root`; where it is `marked`, under the folder of `root` that stands before their MARK.
    """

    def __init__(self, limits: Limits, root: Path | None = None, marked: bool = False):
        self.limits, self.root, self.marked = limits, root.resolve() if root else None, marked
        self.hosts: dict[str, _Host] = {}
        self.lock, self.local = threading.Lock(), threading.local()

    def fetch(self, reference: str) -> tuple[bytes, str]:
        """(bytes, '') or (b'', reason)."""
        try:
            if is_url(reference):
                content = self._with_retries(
                    lambda: self._follow(reference, lambda answer: (None, self._body(answer)))
                )
            else:
                content = self._file(*self._place(reference))
            return picture(content), ""
        except (Refused, Failed) as error:
            return b"", str(error)
        except ValueError:
            return b"", "not a URL"

    def save(self, url: str, target: Path, page: Callable[[str], str] | None = None) -> Path:
        """`target`, the whole file at `url`, of any size: asked for once, going on where an earlier try stopped.

        `page` turns a web page that comes first into the URL to go on with. Raises MufinError.
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
                f"{url} cannot be fetched ({error}); what came is kept and the next run goes on, or set "
                "download.location to a local copy"
            ) from None
        except (Refused, ValueError) as error:
            why = str(error) if isinstance(error, Refused) else "not a URL"
            remedy = (
                "set download.private_addresses to true if it is meant"
                if why == PRIVATE
                else "set download.location to what is there, or to a local copy"
            )
            raise MufinError(f"{url} cannot be fetched ({why}); {remedy}") from None

    def _place(self, reference: str) -> tuple[Path | None, str]:
        """The folder that a path must not leave, and the path in it."""
        folder, mark, path = reference.partition(MARK)
        if not self.marked or self.root is None:
            return self.root, reference
        return (self.root / folder, path) if mark else (None, reference)

    def _file(self, root: Path | None, reference: str) -> bytes:
        """Bytes of a file under the catalog's folder; symbolic links are followed before the look."""
        scheme = urlsplit(reference).scheme.lower()
        if scheme not in ("", "file"):
            raise Refused(f"scheme {scheme[:20]} is not fetched")
        if root is None:
            raise Refused("a path in a source of URLs")
        try:
            path = (
                root / (url2pathname(urlsplit(reference).path) if scheme else reference)
            ).resolve()
        except RuntimeError:  # before Python 3.13: links in a circle
            raise Refused("no such file") from None
        if not path.is_relative_to(root):
            raise Refused("path outside the catalog's folder")
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
                raise Refused("no such file")
            if status.st_size > self.limits.max_bytes:
                raise Refused("too many bytes")
            return path.read_bytes()
        except (OSError, ValueError):
            raise Refused("no such file") from None

    def _with_retries(self, ask: Callable[[], bytes]) -> bytes:
        for attempt in range(self.limits.retries + 1):
            try:
                return ask()
            except Failed as error:
                if attempt == self.limits.retries:
                    raise
                backoff = 0.5 * 2**attempt * (0.5 + random.random())  # jitter: hosts see no waves
                time.sleep(min(max(error.after, backoff), LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _follow(self, url: str, take: Take, headers: dict[str, str] | None = None) -> bytes:
        """What `take` finds at the end of the redirects, each of them looked at like the first URL."""
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
                    host.pause(error.after)  # all that ask this host wait, not this URL alone
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
        good = (200, 206, 416) if "Range" in headers else (200,)
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
                if answer.status_code in AGAIN:
                    raise Failed(
                        f"HTTP {answer.status_code}",
                        _retry_after(answer.headers.get("Retry-After")),
                    )
                if answer.status_code not in good:
                    raise Refused(f"HTTP {answer.status_code}")
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
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            raise Failed("connection failed") from None

    def _body(self, answer: requests.Response) -> bytes:
        length = answer.headers.get("Content-Length", "").strip()
        if length.isdecimal() and int(length) > self.limits.max_bytes:
            raise Refused("too many bytes")
        parts, size, end = [], 0, time.monotonic() + TOTAL * self.limits.timeout
        while part := answer.raw.read1(
            2**16, decode_content=True
        ):  # what is there: a drip cannot hold the clock up
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
        """The body at the end of `part`, which has `have` bytes; or from the start where the server begins anew."""
        if "text/html" in answer.headers.get("Content-Type", "").lower():
            if page is None:
                raise Refused("a web page instead of the file")
            return page(self._body(answer).decode(errors="replace")), b""
        said, status = answer.headers.get("Content-Range", ""), answer.status_code
        if status == 416 and said == f"bytes */{have}":  # all of it was there
            return None, b""
        if status != 200 and not said.startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise Failed("not the part that was asked for")
        if status == 200:
            _version(part).write_text(
                answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            )
        with open(part, "ab" if status == 206 else "wb") as file:
            for _ in progress(self._megabytes(answer, file), f"fetch {part.stem}", "MB"):
                pass
        return None, b""

    def _megabytes(self, answer: requests.Response, file: BinaryIO) -> Iterator[int]:
        """Writes the body as it comes, undecoded, and tells each megabyte; raises Failed where next to nothing comes."""
        size = told = 0
        due, end = SLOWEST, time.monotonic() + TOTAL * self.limits.timeout
        while piece := answer.raw.read1(2**18, decode_content=False):
            file.write(piece)
            size += len(piece)
            if time.monotonic() > end:
                if size < due:
                    raise Failed("timed out")
                due, end = size + SLOWEST, time.monotonic() + TOTAL * self.limits.timeout
            while told < size >> 20:
                yield (told := told + 1)

    def _session(self) -> requests.Session:
        """One a thread. Proxies of the environment count only where private addresses may be reached: a proxy is one."""
        if not hasattr(self.local, "session"):
            session = requests.Session()
            session.headers["User-Agent"] = "mufin-pipeline (product pictures)"
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
    return reference.lower().startswith(("http://", "https://"))


def _version(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _resuming(part: Path, have: int) -> dict[str, str]:
    """Headers that ask for the rest of the same version of a file, byte for byte as it is stored."""
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        version = _version(part).read_text() if _version(part).exists() else ""
        if version and not version.startswith("W/"):  # a weak tag says nothing about bytes
            headers["If-Range"] = version
    return headers


def _retry_after(value: str | None) -> float:
    """Seconds of the header, a number or a date; the longest wait where it is neither."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return min(float(value), LONGEST_WAIT)
    try:
        return min(
            max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0),
            LONGEST_WAIT,
        )
    except (ValueError, TypeError, OverflowError):  # TypeError: a date without a zone
        return LONGEST_WAIT


def picture(content: bytes) -> bytes:
    """The content if its first bytes are a picture's, whatever its Content-Type said; else raises Refused."""
    if not content:
        raise Refused("empty")
    try:
        with Image.open(io.BytesIO(content)):
            return content
    except Image.DecompressionBombError:
        return content  # precompute says what becomes of it
    except Exception:  # Pillow's plugins raise anything on broken headers
        start = content[:200].lstrip().lower()
        html = start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))
        raise Refused("HTML instead of a picture" if html else "not a picture") from None


def fetch_all(
    references: Iterable[str], fetcher: Fetcher, threads: int
) -> Iterator[tuple[str, bytes, str]]:
    """(reference, bytes, reason) of each, as they come; at most four times `threads` are under way or waiting."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: dict = {}
        for reference in references:
            waiting[pool.submit(fetcher.fetch, reference)] = reference
            if len(waiting) >= 4 * threads:
                yield from _done(waiting)
        while waiting:
            yield from _done(waiting)


def _done(waiting: dict) -> Iterator[tuple[str, bytes, str]]:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        yield waiting.pop(future), *future.result()

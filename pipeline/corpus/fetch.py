"""Pictures from URLs and files: bounded, polite, safe; what fails is a reason, never an exception."""

from __future__ import annotations

import io
import ipaddress
import random
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import requests
import urllib3
from PIL import Image
from requests.adapters import HTTPAdapter

AGAIN = {408, 425, 429, 500, 502, 503, 504}      # statuses that may pass
LONGEST_WAIT = 60.0                              # seconds; a longer Retry-After is cut to it
TOTAL = 10                                       # times `timeout`: the most one answer may take in all


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
            raise Refused("private or loopback address")
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


class Fetcher:
    """Fetches one reference at a time for many threads; at most `per_host` requests to a host are under way."""

    def __init__(self, limits: Limits, root: Path | None = None):
        self.limits, self.root = limits, root.resolve() if root else None
        self.hosts: dict[str, threading.Semaphore] = {}
        self.lock, self.local = threading.Lock(), threading.local()

    def fetch(self, reference: str) -> tuple[bytes, str]:
        """(bytes, '') or (b'', reason)."""
        try:
            scheme = urlsplit(reference).scheme.lower()
            if scheme in ("http", "https"):
                content = self._with_retries(reference)
            else:
                content = self._file(reference, scheme)
            return _picture(content), ""
        except (Refused, Failed) as error:
            return b"", str(error)
        except ValueError:
            return b"", "not a URL"

    def _file(self, reference: str, scheme: str) -> bytes:
        """Bytes of a file under the catalog's folder; symbolic links are followed before the look."""
        if scheme not in ("", "file"):
            raise Refused(f"scheme {scheme} is not fetched")
        if self.root is None:
            raise Refused("a path in a source of URLs")
        try:
            path = (self.root / (url2pathname(urlsplit(reference).path) if scheme else reference)).resolve()
        except RuntimeError:                                     # before Python 3.13: links in a circle
            raise Refused("no such file") from None
        if not path.is_relative_to(self.root):
            raise Refused("path outside the catalog's folder")
        try:
            if path.stat().st_size > self.limits.max_bytes:
                raise Refused("too many bytes")
            return path.read_bytes()
        except (OSError, ValueError):
            raise Refused("no such file") from None

    def _with_retries(self, url: str) -> bytes:
        for attempt in range(self.limits.retries + 1):
            try:
                return self._follow(url)
            except Failed as error:
                if attempt == self.limits.retries:
                    raise
                backoff = 0.5 * 2 ** attempt * (0.5 + random.random())      # jitter: hosts see no waves
                time.sleep(min(max(error.after, backoff), LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _follow(self, url: str) -> bytes:
        """The body at the end of the redirects, each of them looked at like the first URL."""
        for _ in range(self.limits.max_redirects + 1):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise Refused("redirect to another scheme")
            with self._host(parts.hostname):
                target, content = self._get(url)
            if target is None:
                return content
            url = urljoin(url, target)
        raise Refused("too many redirects")

    def _get(self, url: str) -> tuple[str | None, bytes]:
        try:
            with self._session().get(url, stream=True, allow_redirects=False, timeout=self.limits.timeout) as answer:
                if answer.is_redirect:
                    return answer.headers["Location"], b""
                if answer.status_code in AGAIN:
                    raise Failed(f"HTTP {answer.status_code}", _retry_after(answer.headers.get("Retry-After")))
                if answer.status_code != 200:
                    raise Refused(f"HTTP {answer.status_code}")
                return None, self._body(answer)
        except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError):
            raise Failed("timed out") from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema,
                UnicodeError):
            raise Refused("not a URL") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError):
            raise Failed("connection failed") from None

    def _body(self, answer: requests.Response) -> bytes:
        length = answer.headers.get("Content-Length", "").strip()
        if length.isdecimal() and int(length) > self.limits.max_bytes:
            raise Refused("too many bytes")
        parts, size, end = [], 0, time.monotonic() + TOTAL * self.limits.timeout
        while part := answer.raw.read1(2**16, decode_content=True):      # what is there: a drip cannot hold the clock up
            size += len(part)
            if size > self.limits.max_bytes:
                raise Refused("too many bytes")
            if time.monotonic() > end:
                raise Failed("timed out")
            parts.append(part)
        return b"".join(parts)

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

    def _host(self, name: str) -> threading.Semaphore:
        with self.lock:
            return self.hosts.setdefault(name, threading.Semaphore(self.limits.per_host))


def _retry_after(value: str | None) -> float:
    """Seconds; the header's date form is answered with the longest wait."""
    if value is None:
        return 0.0
    return min(float(value), LONGEST_WAIT) if value.strip().isdigit() else LONGEST_WAIT


def _picture(content: bytes) -> bytes:
    """The content if its first bytes are a picture's, whatever its Content-Type said; else raises Refused."""
    if not content:
        raise Refused("empty")
    try:
        with Image.open(io.BytesIO(content)):
            return content
    except Image.DecompressionBombError:
        return content                                       # precompute says what becomes of it
    except Exception:                                        # Pillow's plugins raise anything on broken headers
        start = content[:200].lstrip().lower()
        html = start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml"))
        raise Refused("HTML instead of a picture" if html else "not a picture") from None


def fetch_all(references: Iterable[str], fetcher: Fetcher, threads: int) -> Iterator[tuple[str, bytes, str]]:
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

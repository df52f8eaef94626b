"""Pictures from URLs that a caller names: never from this machine or its network, and in bounds.

The sockets keep the bounds (see `mufin.corpus.connections`), and each connection goes to an
address that was judged, also after a redirect. No proxy of the environment is used: it could
connect to private addresses for us.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from mufin.corpus.connections import Exchange, Session, exchange
from mufin.corpus.keep_alive import Answer, redirects
from mufin.corpus.reasons import (
    NO_CONNECTION,
    NOT_URL,
    TIMED_OUT,
    TOO_LARGE,
    TOO_MANY_REDIRECTS,
    Failed,
    Refused,
)
from mufin.errors import shown
from mufin.serving.web.limits import Settings
from mufin.serving.web.refusals import Refusal, busy

SCHEME = "not an http or https URL"
NAMED = "it names a user"  # a password in a URL would be sent on
WAITING = 4  # fetches that wait, per thread
AGENT = "mufin-serve"


class ImageFetcher:
    """Fetches URLs in a few threads; what does not fit is refused at once."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.threads = ThreadPoolExecutor(settings.fetch_threads, "fetch")
        self.local = threading.local()
        self.under_way = 0  # of the event loop alone

    async def fetch(self, url: str, field: str) -> bytes:
        """The bytes at `url`; raises Refusal."""
        if self.under_way >= (1 + WAITING) * self.settings.fetch_threads:
            raise busy("too many image URLs are being fetched; try again later")
        self.under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, self.get, url)
        except (Refused, Failed) as error:
            text = f"{field} is {shown(url)}, which cannot be fetched ({error}); send its bytes"
            raise Refusal(422, text, field) from None
        finally:
            self.under_way -= 1

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)

    def get(self, url: str) -> bytes:
        """The bytes at the end of the redirects; raises Refused or Failed. For any thread."""
        bounds = self.settings
        try:
            now = exchange(bounds.fetch_step, bounds.fetch_seconds, public_only=True)
            for _ in range(bounds.fetch_redirects + 1):
                target, content = self._get(_checked(url), now)
                if target is None:
                    return content
                url = urljoin(url, target)
            raise Refused(TOO_MANY_REDIRECTS)
        except (TimeoutError, requests.Timeout, urllib3.exceptions.ReadTimeoutError):
            raise Failed(TIMED_OUT) from None
        except ssl.SSLError:  # that of a certificate is a ValueError too
            raise Failed(NO_CONNECTION) from None
        except (
            ValueError,  # also UnicodeError, and InvalidURL of requests
            urllib3.exceptions.LocationParseError,
        ):
            raise Refused(NOT_URL) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError):
            raise Failed(NO_CONNECTION) from None

    def _get(self, url: str, now: Exchange) -> tuple[str | None, bytes]:
        """(URL that it leads to, b'') of a redirect, (None, content) of a picture."""
        with closing(self._session().get(url, {}, self.settings.fetch_step)) as answer:
            if redirects(answer):
                return _location(answer.headers["location"]), b""
            if answer.status != 200:
                raise Refused(f"HTTP {answer.status}")
            return None, self._body(answer, now)

    def _body(self, answer: Answer, now: Exchange) -> bytes:
        most = self.settings.image_bytes
        length = answer.headers.get("content-length", "").strip()
        if length.isdecimal() and (len(length) > 18 or int(length) > most):
            raise Refused(TOO_LARGE)
        now.allow(most)
        content = bytearray()
        while part := answer.read1(2**16, decode_content=True):
            content += part
            if len(content) > most:
                raise Refused(TOO_LARGE)
        return bytes(content)

    def _session(self) -> Session:
        if not hasattr(self.local, "session"):
            self.local.session = Session(environment=False, user_agent=AGENT)
        return self.local.session


def _checked(url: str) -> str:
    """The URL; raises Refused if it is none of http, and ValueError if it is none at all."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise Refused(SCHEME)
    if not parts.hostname or not url.isprintable():
        raise Refused(NOT_URL)
    if "@" in parts.netloc:
        raise Refused(NAMED)
    return url


def _location(location: str) -> str:
    """Where a redirect leads; like browsers, it is read as UTF-8 if it can be."""
    try:
        return location.encode("latin-1").decode()
    except UnicodeError:
        return location

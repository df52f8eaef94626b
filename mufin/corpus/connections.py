"""HTTP connections that keep bounds: one deadline and a number of bytes per request.

urllib3 and http.client have a timeout per read, so a server that sends a byte now and then holds
them for ever: in the status line, the headers, a chunk size, after the body, or with `100 Continue`
before it. Here the sockets themselves keep the bounds, so that no phase is left out.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
import weakref
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy, to_native_string
from urllib3.util.ssl_ import create_urllib3_context

from mufin.corpus.addresses import Info, addresses_of
from mufin.corpus.keep_alive import Answer, KeepAlive
from mufin.corpus.reasons import NO_CONNECTION, TIMED_OUT, TOO_LARGE, Refused, Unreachable
from mufin.errors import MufinError

HEAD = 2**17  # bytes that may come besides the body: status lines, headers, chunk sizes, trailers
KEPT = 10  # connections per thread, as many as requests has pools
# A URL that is sent as it is written: what its path and query may have, RFC 3986 without `%`
PLAIN = re.compile(
    r"(https?://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[1-9][0-9]{0,4})?)"
    r"(/(?!/)[A-Za-z0-9._~!$&'()*+,;=:@%/-]*(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]+)?)"
)

# urllib3 warns of broken headers, and shows them; a broken answer is a counted reason here.
logging.getLogger("urllib3").setLevel(logging.ERROR)


class Exchange:
    """One request and its answer: the bounds that the sockets of its thread keep."""

    def __init__(self, timeout: float, total: float, public_only: bool):
        """`timeout` seconds per step, `total` seconds for all; only to `public_only` addresses."""
        self.timeout, self.public_only = timeout, public_only
        self.end = time.monotonic() + total
        self.received, self.allowed = 0, HEAD  # bytes so far, and at most

    def left(self) -> float:
        """Seconds that the next step may take; raises TimeoutError if the time is up."""
        if (left := self.end - time.monotonic()) <= 0:
            raise TimeoutError("the request took too long in total")
        return min(left, self.timeout)

    def count(self, size: int) -> None:
        """Add bytes that came; raises Refused if they are too many."""
        self.received += size
        if self.received > self.allowed:
            raise Refused(TOO_LARGE)

    def allow(self, size: int, seconds: float | None = None) -> None:
        """From now on, `size` more bytes of a body may come, in `seconds` if given."""
        self.allowed = self.received + size + HEAD
        if seconds is not None:
            self.end = time.monotonic() + seconds


class _Thread(threading.local):
    exchange: Exchange


_thread = _Thread()


def exchange(timeout: float, total: float, public_only: bool) -> Exchange:
    """The `Exchange` for all connections that this thread uses from now on."""
    _thread.exchange = Exchange(timeout, total, public_only)
    return _thread.exchange


class _Bounded:
    """Part of a socket class: each call takes the time that is left, and counts what came."""

    again = b""  # to be received again

    def recv(self, *args: Any) -> bytes:
        self._bound()
        data = super().recv(*args)  # type: ignore[misc]
        _thread.exchange.count(len(data))
        return data

    def recv_into(self, buffer: Any, *args: Any) -> int:
        if self.again:
            size = min(len(buffer), len(self.again))
            buffer[:size], self.again = self.again[:size], self.again[size:]
            return size
        self._bound()
        size = super().recv_into(buffer, *args)  # type: ignore[misc]
        _thread.exchange.count(size)
        return size

    def send(self, *args: Any) -> int:
        self._bound()
        return super().send(*args)  # type: ignore[misc]

    def sendall(self, *args: Any) -> None:
        # On a plain socket the timeout bounds the whole call; with TLS, it calls `send` above.
        self._bound()
        super().sendall(*args)  # type: ignore[misc]

    def unread(self, data: bytes) -> None:
        """`recv_into` gives these bytes first, which came and were counted before."""
        self.again = data

    def _bound(self) -> None:
        left = _thread.exchange.left()
        if left != self.gettimeout():  # type: ignore[attr-defined]  # a call to the system is saved
            self.settimeout(left)  # type: ignore[attr-defined]


class _Socket(_Bounded, socket.socket):
    def pending(self) -> int:
        """As of a socket with TLS; without it the system holds what was not received."""
        return 0


class _TlsSocket(_Bounded, ssl.SSLSocket):
    # The handshake is one call of OpenSSL, for which the timeout of the socket is a total.
    pass


def connect(host: str, port: int) -> socket.socket:
    """A connection to a host within the bounds of this thread's exchange.

    It goes to one of the addresses that were judged, in their order. Raises Unreachable, and
    Refused without any connection if the host may not be reached.
    """
    now, reason, name = _thread.exchange, NO_CONNECTION, host.strip("[]")  # of an IPv6 address
    for info in addresses_of(name, port, now.left(), now.public_only):
        try:
            return _connected(info, now)
        except TimeoutError:
            reason = TIMED_OUT
        except OSError:
            reason = NO_CONNECTION
    raise Unreachable(reason)


def _connected(info: Info, now: Exchange) -> socket.socket:
    family, kind, protocol, _, address = info
    connection = _Socket(family, kind, protocol)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(now.left())
        connection.connect(address)
        return connection
    except OSError:
        connection.close()
        raise


def reachable(host: str, port: int, timeout: float, public_only: bool) -> bool:
    """Whether a connection to the host can be made within `timeout` seconds; sends nothing."""
    exchange(timeout, timeout, public_only)
    try:
        connect(host, port).close()
    except (Refused, Unreachable, TimeoutError, ValueError):
        return False
    return True


class _Http(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port)


class _Https(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port)


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


POOLS = {"http": _HttpPool, "https": _HttpsPool}


def _tls() -> ssl.SSLContext:
    """A context of urllib3 whose sockets keep the bounds; the adapter adds the certificates."""
    context = create_urllib3_context()
    context.sslsocket_class = _TlsSocket
    return context


class _Adapter(HTTPAdapter):
    """An adapter of requests whose connections keep the bounds, also those through a proxy."""

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, ssl_context=_tls(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy, **kwargs):
        if proxy.lower().startswith("socks"):
            raise MufinError(
                f"the environment names the proxy {urlsplit(proxy).hostname}, a SOCKS proxy; set "
                "http_proxy and https_proxy to an HTTP proxy, or unset all_proxy"
            )
        kwargs |= {"ssl_context": _tls(), "proxy_ssl_context": _tls()}
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


class Session:
    """Sends GET requests of one thread, which reuse connections; keeps no cookies.

    Not `requests.Session.get`: it keeps every cookie for ever, and it reads the whole body of a
    redirect, of any size.
    """

    def __init__(self, environment: bool, user_agent: str):
        """`environment`: use its proxies, certificates and netrc, as requests does."""
        self.session = requests.Session()
        self.session.headers["User-Agent"] = user_agent
        self.session.trust_env = environment
        self.adapter = _Adapter()
        # By scheme, host and port, the last used one last; None if a proxy is between.
        self.kept: dict[str, KeepAlive | None] = {}
        # Not at the end of the process, when threads may still use theirs
        weakref.finalize(self, _close, self.kept).atexit = False

    def get(self, url: str, headers: dict[str, str], timeout: float) -> Answer:
        """The answer, its body not read; call `exchange` before it.

        What the environment says of a host is looked up once while its connection is kept.
        """
        if not headers and (found := _plain(url)) and (kept := self._kept(found[1])):
            return kept.get(found[2])
        request, settings = self._prepared(url, headers)
        return self.adapter.send(request, timeout=timeout, **settings).raw

    def _prepared(self, url: str, headers: dict[str, str]) -> tuple[requests.PreparedRequest, dict]:
        request = self.session.prepare_request(requests.Request("GET", url, headers))
        of = request.url or url
        return request, self.session.merge_environment_settings(of, {}, True, None, None)

    def _kept(self, root: str) -> KeepAlive | None:
        """The connection to a host, None if it is behind a proxy."""
        if root in self.kept:
            kept = self.kept.pop(root)
        else:
            kept = self._direct(root)
        while len(self.kept) >= KEPT:
            if oldest := self.kept.pop(next(iter(self.kept))):
                oldest.close()
        self.kept[root] = kept
        return kept

    def _direct(self, root: str) -> KeepAlive | None:
        request, settings = self._prepared(root, {})
        if select_proxy(root, settings["proxies"]):
            return None
        verify, cert = settings["verify"], settings["cert"]
        pool = self.adapter.get_connection_with_tls_context(request, verify, {}, cert)
        self.adapter.cert_verify(pool, root, verify, cert)
        fields = {k: to_native_string(v, "latin-1") for k, v in request.headers.items()}
        return KeepAlive(pool._new_conn(), fields)  # type: ignore[arg-type]  # one of POOLS


def _plain(url: str) -> re.Match[str] | None:
    """The scheme with host and port of a URL, and the rest as it is asked for.

    None if the URL names a user or a host that is not one of ASCII letters, digits, dots and
    hyphens.
    """
    found = PLAIN.fullmatch(url)
    if found is None or "%" in url or "/." in url:
        request = requests.PreparedRequest()
        request.prepare_url(url, None)  # percent signs, dots, letters that are not ASCII
        found = PLAIN.fullmatch((request.url or "").partition("#")[0])
    return found


def _close(kept: dict[str, KeepAlive | None]) -> None:
    for connection in kept.values():
        if connection is not None:
            connection.close()

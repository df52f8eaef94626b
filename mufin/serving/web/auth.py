"""Who may ask: the API key, and without one only this machine, and no page of another site."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from mufin.errors import MufinError, shown
from mufin.serving.web.refusals import Refusal

VARIABLE = "MUFIN_API_KEY"
ALWAYS_OPEN = {"/healthz", "/readyz"}  # for the probes of a load balancer
# The same files for every installation, which a browser asks for without a key. The page and the
# documentation then send the key that a person types.
OPEN_FILES = ("/static/", "/docs/")
OPEN_PAGES = {"/", "/docs", "/openapi.json", "/favicon.ico"}
SAFE = {"GET", "HEAD", "OPTIONS"}


def key_of_environment() -> str | None:
    """The API key, None if there is none; raises MufinError for one that no header can carry."""
    key = os.environ.get(VARIABLE)
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise MufinError(f"{VARIABLE} must be printable ASCII characters without blanks")
    return key


def check_host(host: str, key: str | None) -> None:
    """Raises MufinError if others could reach the server and no key is set."""
    if key is None and not is_loopback(host):
        raise MufinError(
            f"the host is {shown(host)}, which other machines can reach; set the environment "
            f"variable {VARIABLE} to a secret, or use the host 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a host, as text, is a loopback address or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_open(path: str) -> bool:
    return path in ALWAYS_OPEN or path in OPEN_PAGES or path.startswith(OPEN_FILES)


def check(method: str, path: str, headers: Mapping[bytes, bytes], key: str | None) -> None:
    """Raises Refusal if this request may not be answered."""
    if path in ALWAYS_OPEN:
        return
    if key is None:
        _check_site(method, headers)
    elif not is_open(path) and not _has_key(headers, key):
        raise Refusal(
            401,
            "the API key is missing or wrong; send it as `Authorization: Bearer KEY` "
            "or as `X-API-Key: KEY`",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _has_key(headers: Mapping[bytes, bytes], key: str) -> bool:
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    given = headers.get(b"x-api-key", b"")
    if scheme.lower() == b"bearer":
        given = bearer.strip()
    return hmac.compare_digest(given, key.encode())


def _check_site(method: str, headers: Mapping[bytes, bytes]) -> None:
    """Without a key, a browser on this machine must not ask for the sake of another site.

    A site may give its own name the address 127.0.0.1 (DNS rebinding): then Host is that name. Or
    it may send a form to this server: then Origin is not this server.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_loopback(_name(host)):
        raise Refusal(
            403,
            f"the header Host is {shown(host)}, which is not a name of this machine; use "
            f"http://127.0.0.1, or set {VARIABLE}",
        )
    if method in SAFE:
        return
    origin = headers.get(b"origin")
    cross = headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin")
    if cross or origin is not None and origin.decode("latin-1").lower() != f"http://{host.lower()}":
        raise Refusal(403, f"a page of another site may not change anything here; set {VARIABLE}")


def _name(host: str) -> str:
    """The name in a Host header, '' if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        plain = parts.username is None and not (parts.path or parts.query or parts.fragment)
        return (parts.hostname or "") if plain and parts.port != 0 else ""
    except ValueError:
        return ""

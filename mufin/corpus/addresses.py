"""Which IP addresses are public, and the addresses of a host name.

A catalog may come from someone who is not trusted. Its URLs must not reach the machine itself, its
local network or the metadata service of a cloud.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from mufin.corpus.reasons import NO_NAME, PRIVATE, TIMED_OUT, Refused, Unreachable

# Global by the registry, but not a server of the internet: protocol assignments (RFC 6890) and the
# anycast address of 6to4 relays (RFC 7526).
NOT_PUBLIC = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
UNICAST = IPv6Network("2000::/3")  # all that is allocated to servers of the internet
SIX_TO_FOUR = IPv6Network("2002::/16")  # leads to any IPv4 address, through a relay
# An IPv4 address is in the last 32 bits of these: NAT64, IPv4-mapped and IPv4-compatible. The
# prefix of a network's own NAT64, 64:ff9b:1::/48, is not among them: it is never public.
EMBEDDED = tuple(map(IPv6Network, ("64:ff9b::/96", "::ffff:0:0/96", "::/96")))

# What `socket.getaddrinfo` returns per address: (family, type, protocol, name, socket address)
Info = tuple[int, int, int, str, tuple]


def public(address: str) -> bool:
    """Whether an IP address, as text, is that of a server on the internet.

    An address that leads to an IPv4 address through a translator is judged by that one.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])  # without the IPv6 zone
    if isinstance(ip, IPv6Address):
        if any(ip in network for network in EMBEDDED):
            return _public_v4(IPv4Address(int(ip) & 0xFFFFFFFF))
        # Teredo, documentation and others inside 2000::/3 are not global.
        return ip in UNICAST and ip not in SIX_TO_FOUR and ip.is_global
    return _public_v4(ip)


def _public_v4(ip: IPv4Address) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in NOT_PUBLIC)


def addresses_of(host: str, port: int, seconds: float, public_only: bool) -> list[Info]:
    """The addresses of a host; with `public_only`, the public ones among them.

    Raises Unreachable if the name is not found in `seconds`, and Refused if it has addresses, but
    no public one. The caller connects to what is returned: a second look at the name could give
    another address than the one that was judged.
    """
    found = _resolved(host, port, seconds)
    allowed = [info for info in found if not public_only or public(info[4][0])]
    if not allowed:
        raise Refused(PRIVATE)
    return allowed


def _resolved(host: str, port: int, seconds: float) -> list[Info]:
    """`socket.getaddrinfo`, for `seconds` at most.

    It has no timeout, so it runs in a thread of its own, which is left alone when time is up.
    """
    answers: queue.SimpleQueue[list[Info] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))  # type: ignore[arg-type]
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=max(seconds, 0.0))
    except queue.Empty:
        raise Unreachable(TIMED_OUT) from None
    if isinstance(answer, OSError):
        raise Unreachable(NO_NAME) from None
    if isinstance(answer, Exception):  # a UnicodeError: not the name of a host
        raise answer
    return answer

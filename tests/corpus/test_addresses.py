"""Which addresses are public, and names that are resolved once and in time."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin.corpus import addresses, connections
from mufin.corpus.addresses import EMBEDDED, addresses_of, public
from mufin.corpus.fetch import Fetcher
from mufin.corpus.reasons import NO_NAME, PRIVATE, TIMED_OUT, Refused, Unreachable
from tests.support.servers import Server, jpeg, limits, serving


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "192.0.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"],
)
def test_servers_of_the_internet_are_public(address):
    assert public(address)


@pytest.mark.parametrize(
    "address",
    # the local ones, and those that lead to them through a translator or a relay
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1"]
    + ["192.0.0.1", "192.0.0.9", "192.0.0.10", "192.0.0.192", "192.88.99.1", "255.255.255.255"]
    + ["::", "::1", "::7f00:1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "feff::1"]
    + ["ff02::1", "ff0e::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808"]
    + ["2002:7f00:1::1", "2002:808:808::1", "2001::1", "2001:db8::1", "::ffff:127.0.0.1", "100::1"],
)
def test_other_addresses_are_not_public(address):
    assert not public(address)


@given(st.ip_addresses(v=4), st.sampled_from(EMBEDDED))
def test_a_translated_address_is_judged_by_its_ipv4_address(ip, network):
    translated = ipaddress.IPv6Address(int(network.network_address) | int(ip))
    assert public(str(translated)) == public(str(ip))


@given(st.ip_addresses(v=6))
def test_public_ipv6_addresses_are_global_unicast(ip):
    if public(str(ip)) and not any(ip in network for network in EMBEDDED):
        assert ip.is_global and not ip.is_private and str(ip)[0] in "23" and not ip.is_multicast


def info(address: str, port: int) -> tuple:
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)


def test_a_name_with_some_public_addresses_leads_to_those(monkeypatch):
    found = [info(address, 80) for address in ("10.0.0.1", "8.8.8.8", "127.0.0.1", "1.1.1.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    assert addresses_of("shop.example", 80, 5.0, public_only=True) == [found[1], found[3]]
    assert addresses_of("shop.example", 80, 5.0, public_only=False) == found
    del found[3], found[1]
    with pytest.raises(Refused, match=PRIVATE):
        addresses_of("shop.example", 80, 5.0, public_only=True)


def test_the_connection_goes_to_the_address_that_was_judged(monkeypatch):
    with serving(Server()) as server:
        port, asked = server.server_address[1], []

        def rebound(host, *args, **kwargs):
            """Another address each time, as an attacker's name server answers."""
            asked.append(host)
            return [info("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port)]

        monkeypatch.setattr(socket, "getaddrinfo", rebound)
        monkeypatch.setattr(addresses, "public", lambda address: address == "127.0.0.1")
        fetcher = Fetcher(limits(private_addresses=False))
        url = f"http://shop.example:{port}/pic/1.jpg"
        assert fetcher.fetch(url) == (jpeg(1), "") and asked == ["shop.example"]
        assert Fetcher(limits(private_addresses=False)).fetch(url) == (b"", PRIVATE)


def test_a_name_server_that_never_answers_is_left_alone(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: over.wait(60))
    start = time.monotonic()
    with pytest.raises(Unreachable, match=TIMED_OUT):
        addresses_of("shop.example", 80, 0.1, public_only=True)
    assert Fetcher(limits(timeout=0.1, retries=0)).fetch("http://shop.example/a.jpg")[1] == (
        TIMED_OUT
    )
    assert time.monotonic() - start < 20
    over.set()


def test_a_name_that_is_not_found_has_its_own_reason(monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for allowed in (True, False):
        fetcher = Fetcher(limits(private_addresses=allowed, retries=0))
        assert fetcher.fetch("http://shop.example/a.jpg") == (b"", NO_NAME)


def test_the_next_address_is_tried_if_one_gives_no_connection(monkeypatch):
    with serving(Server()) as server, socket.create_server(("127.0.0.2", 0)) as closed:
        port = closed.getsockname()[1]
        closed.close()
        found = [info("127.0.0.2", port), info(*server.server_address)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        connections.exchange(5.0, 50.0, public_only=False)
        with connections.connect("shop.example", port) as connection:
            assert connection.getpeername() == server.server_address

"""Hosts that are given up and tried again, and the difference between dead hosts and no network."""

from __future__ import annotations

import threading
import time

import pytest

from mufin.corpus import hosts
from mufin.corpus.hosts import FAILURES, LOST, TRIAL, Breaker, GivenUp, Network
from mufin.corpus.reasons import Failed, Refused, Unreachable, temporary
from mufin.errors import MufinError


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """[seconds]: a clock that stands still until a test sets it."""
    now = [0.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(hosts, "time", Clock)
    return now


def made(breaker: Breaker) -> bool:
    """Whether a request is made."""
    try:
        with breaker.request():
            return True
    except GivenUp:
        return False


def broken(breaker: Breaker) -> Breaker:
    for _ in range(FAILURES):
        assert made(breaker)
        breaker.failed(unreachable=True)
    return breaker


def test_a_host_is_given_up_after_some_failures_in_a_row(clock):
    breaker = broken(Breaker())
    assert not any(made(breaker) for _ in range(1000))


def test_an_answer_between_failures_keeps_a_host(clock):
    breaker = Breaker()
    for _ in range(10 * FAILURES):
        breaker.failed(unreachable=True)
        breaker.failed(unreachable=False)
        breaker.answered()
        assert made(breaker)


def test_one_trial_is_made_after_each_pause(clock):
    breaker = broken(Breaker())
    for pause in range(1, 5):
        clock[0] = pause * TRIAL
        assert [made(breaker) for _ in range(5)] == [True] + [False] * 4


def test_a_trial_with_an_answer_opens_the_way(clock):
    breaker = broken(Breaker())
    clock[0] = TRIAL
    with breaker.request():
        breaker.answered()
    assert all(made(breaker) for _ in range(100))


@pytest.mark.parametrize("answered", [True, False])
def test_others_wait_for_the_outcome_of_a_trial(clock, answered):
    breaker, got = broken(Breaker()), []
    clock[0] = TRIAL
    with breaker.request():
        threads = [threading.Thread(target=lambda: got.append(made(breaker))) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        assert not got
        if answered:
            breaker.answered()
    for thread in threads:
        thread.join()
    assert got == [answered] * 8


# The network

A, B, C = ("a.example", 80), ("b.example", 443), ("c.example", 80)


def network(*alive) -> Network:
    return Network(4, lambda place: place in alive)


def fails(net: Network, place, error: type[Failed] = Unreachable) -> str:
    """One reference after all its tries: what came of it."""
    try:
        with net.request(place):
            raise error("connection failed")
    except Failed as failure:
        net.failed(failure)
        return str(failure)
    except Refused as refusal:
        return str(refusal)


def test_no_connection_to_any_host_is_a_lost_network(clock):
    net = network()
    net.places = [A, B, C]
    with pytest.raises(MufinError, match="got no connection .*'a.example'.* the network is lost"):
        for _ in range(2 * LOST):
            fails(net, A)
    with pytest.raises(MufinError, match="run the same command to continue$"):
        fails(net, B)


def test_the_hosts_of_a_catalog_may_all_be_one(clock):
    net = network()
    net.places = [A]
    assert [fails(net, A) for _ in range(FAILURES)] == ["connection failed"] * FAILURES
    with pytest.raises(MufinError, match="the network is lost"):
        for _ in range(LOST):
            fails(net, A)


def test_dead_hosts_are_no_lost_network_if_another_can_be_reached(clock):
    net = network(C)
    net.places = [A, B, C]
    for step in range(5 * LOST):
        clock[0] = step
        fails(net, (A, B)[step % 2])
    assert not net.lost


def test_the_host_that_answered_last_shows_that_there_is_a_network(clock):
    net = network(C)
    net.answered(C)
    for _ in range(2 * LOST):
        fails(net, A)
    assert not net.lost


def test_answers_without_a_picture_show_that_there_is_a_network(clock):
    net = network()
    net.places = [A, B]
    for step in range(4 * LOST):
        fails(net, A)
        if step % (LOST // 2) == 0:
            net.answered(B)
    assert not net.lost


def test_failures_after_a_connection_give_up_the_host_alone(clock):
    net = network()
    net.places = [A]
    reasons = {fails(net, A, Failed) for _ in range(4 * LOST)}
    assert reasons == {"connection failed", "its host failed too often"} and not net.lost


def test_ports_of_a_host_are_given_up_one_by_one(clock):
    net = network(B)
    net.places = [A, B]
    for _ in range(2 * FAILURES):
        fails(net, A)
    with net.request((A[0], 443)):
        pass
    with pytest.raises(GivenUp), net.request(A):
        pass
    net.try_again()
    with net.request(A):
        pass


def test_only_what_may_mend_itself_is_asked_again():
    again = ["timed out", "connection failed", "host name not found", "HTTP 503", "HTTP 429"]
    assert all(map(temporary, [*again, "its host failed too often"]))
    final = [
        "HTTP 404",
        "HTTP 403",
        "not a picture",
        "too many bytes",
        "private or loopback address",
    ]
    assert not any(map(temporary, [*final, "empty", "not a URL", ""]))

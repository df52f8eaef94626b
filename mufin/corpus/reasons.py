"""Why a reference gives no picture: the two kinds of failure, and what may be mended by waiting."""

from __future__ import annotations

RETRIED = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may be temporary
PRIVATE = "private or loopback address"
TOO_LARGE = "too many bytes"
TIMED_OUT = "timed out"
NO_CONNECTION = "connection failed"
NO_NAME = "host name not found"
GIVEN_UP = "its host failed too often"  # not asked: see `hosts.Breaker`
WAITS = "the host asks to wait again and again"
TEMPORARY = {TIMED_OUT, NO_CONNECTION, NO_NAME, GIVEN_UP, WAITS} | {f"HTTP {s}" for s in RETRIED}


NOT_PICTURE, NOT_URL, TOO_MANY_REDIRECTS = "not a picture", "not a URL", "too many redirects"
NOT_READ = " is not read"  # end of the reason for a format, such as PDF
LASTING = {"HTTP 404", "HTTP 410", PRIVATE, TOO_LARGE, NOT_PICTURE, NOT_URL, TOO_MANY_REDIRECTS}


class Refused(Exception):
    """A reference gives no picture, and another try would not help; the text is the reason."""


class Failed(Exception):
    """A try gave no picture, but another may; the host asks to wait `after` seconds before it."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after
        self.place: tuple[str, int] | None = None  # the host and port that were asked


class Unreachable(Failed):
    """No connection was made: the host or the whole network may be gone."""


def temporary(reason: str) -> bool:
    """Whether the same reference may give a picture on another day, with nothing corrected.

    That is so for want of a network or a host, and not for an HTTP 404, say.
    """
    return reason in TEMPORARY


def lasting(reason: str) -> bool:
    """Whether another request for the same reference is not worth its time, also on another day.

    That is so for what is gone, or no picture. HTTP 403 may end any day, and a page of HTML may be
    that of an outage.
    """
    return reason in LASTING or reason.endswith(NOT_READ)

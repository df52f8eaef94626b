"""A server of `mufin serve` with a fake recommender, on a free port of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import httpx

from mufin.serving.web.limits import Settings
from mufin.serving.web.serve import Server, address, bound
from tests.support.fake_service import FakeKeeper, FakeModels, FakeService

SECONDS = 20.0  # that anything here may take


class Running:
    """A running server, and what it is made of."""

    def __init__(self, settings: Settings, models: FakeModels, keeper: FakeKeeper):
        self.models, self.keeper, self.settings = models, keeper, settings
        self.service = next(iter(models.services.values()))
        self.server = Server(models.load, self.service.name, settings, keeper)
        self.engine = self.server.engine
        self.url, self.port = "", 0

    def client(self, **settings) -> httpx.Client:
        settings = {"timeout": SECONDS, "trust_env": False} | settings
        return httpx.Client(base_url=self.url, **settings)

    def raw(self, *parts: bytes, until: bytes = b"", pause: float = 0.0) -> bytes:
        """What comes back for these bytes on a connection of their own, up to its end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            for part in parts:
                try:
                    connection.sendall(part)
                except OSError:
                    break
                time.sleep(pause)
            found = b""
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(65536):
                    found += piece
                    if until and until in found:
                        break
            return found


@contextlib.contextmanager
def running(
    *services: FakeService, ready: bool = True, models: FakeModels | None = None, **changes
) -> Iterator[Running]:
    """A server with these models, the first of which answers; it stops at the end of the block."""
    models = models or FakeModels(*(services or (FakeService(),)))
    settings = Settings(**{"port": 0, "seconds": 10.0} | changes)
    keeper = FakeKeeper()
    now = Running(settings, models, keeper)
    with bound(settings.host, settings.port) as listener:
        now.url, now.port = address(listener), listener.getsockname()[1]
        thread = threading.Thread(target=now.server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            if ready:
                eventually(lambda: now.engine.ready)
            yield now
        finally:
            for service in models.services.values():
                service.blocked.set()
            models.free.set()
            keeper.free.set()
            now.server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive(), "the server does not stop"


def eventually(condition) -> None:
    """Waits until the condition holds; fails if it does not."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def metric(text: str, name: str) -> float:
    """The value of a line of /metrics, such as `mufin_answers_total`."""
    [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])

"""Runs the server until a signal ends it: SIGTERM stops, SIGHUP loads the model again."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import uvicorn

from mufin.errors import MufinError, shown
from mufin.serving.web import auth
from mufin.serving.web.app import create_app
from mufin.serving.web.engine import Engine
from mufin.serving.web.limits import Settings
from mufin.serving.web.metrics import Metrics
from mufin.serving.web.protocol import Protocol
from mufin.serving.web.refusals import Refusal
from mufin.serving.web.service import Keeper, NoKeeper
from mufin.serving.web.swap import Load, Swaps

logger = logging.getLogger("mufin.serve")
CONNECTIONS = 4096  # at once, at most; beyond, a connection gets HTTP 503
KEEP_ALIVE = 15  # seconds that a connection may be idle


def serve(
    load: Load,
    folder: str,
    settings: Settings,
    keeper: Keeper | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the model of `folder` until SIGTERM or SIGINT; `say` gets the address.

    `load` makes a recommender of a folder; it runs in a thread, while /healthz answers already.
    Raises MufinError if the host may not be bound, the port is taken, or the model does not load.
    """
    auth.check_host(settings.host, settings.key)
    _log()
    with bound(settings.host, settings.port) as listener:
        server = Server(load, folder, settings, keeper or NoKeeper())
        say(f"mufin serve listens on {address(listener)}")
        server.run(sockets=[listener])
    if server.error:
        raise MufinError(server.error)


class Server(uvicorn.Server):
    """uvicorn with this project's signals."""

    def __init__(self, load: Load, folder: str, settings: Settings, keeper: Keeper):
        self.engine = Engine(settings, keeper, Metrics())
        self.swaps = Swaps(self.engine, keeper, load)
        self.folder, self.settings = folder, settings
        self.error: str | None = None  # why the first model was not loaded
        app = create_app(self.engine, self.swaps, settings)
        super().__init__(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="on",
                loop="asyncio",
                access_log=False,
                log_level="warning",
                server_header=False,
                proxy_headers=False,
                limit_concurrency=connections(),
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=int(settings.seconds) + 1,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.swaps.begin(self.folder).add_done_callback(self._loaded)

    def _loaded(self, future: Future[dict]) -> None:
        """A first model that is not loaded ends the server; a later one does not."""
        error = future.exception()
        if error is not None and not self.engine.stopping:
            self.error = error.text if isinstance(error, Refusal) else str(error)
            self.should_exit = True

    def reload(self) -> None:
        """Load the folder again; what goes wrong is in the log."""
        try:
            self.swaps.begin(self.folder)
        except Refusal as refusal:
            logger.error("%s", refusal.text)

    def stop(self) -> None:
        """/readyz says 503 at once; after `drain_seconds` no connection is taken any more."""
        self.engine.draining = True
        asyncio.get_running_loop().call_later(self.settings.drain_seconds, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not uvicorn's, which raises the signal once more at the end, so that the exit fails."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        actions = {
            signal.SIGTERM: self._on_stop,
            signal.SIGINT: self._on_stop,
            signal.SIGHUP: self.reload,
        }
        before = {number: signal.getsignal(number) for number in actions}
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _on_stop(self) -> None:
        """The first signal stops in order, the second one waits for nothing."""
        if self.engine.draining:
            self.should_exit = self.force_exit = True
        else:
            self.stop()


def connections() -> int:
    """How many may be open at once: half of the files that this process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if files == resource.RLIM_INFINITY else min(CONNECTIONS, files // 2)


def _log() -> None:
    """What the server says goes to standard error, one line each with the time."""
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; raises MufinError if the address cannot be bound."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = infos[0]
        listener = socket.create_server(place, family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        raise MufinError(
            f"port {port} of the host {shown(host)} cannot be bound ({error}); choose another one"
        ) from None
    with listener:
        yield listener


def address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

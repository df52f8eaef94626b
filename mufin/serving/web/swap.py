"""Another model in place of the present one, without a pause: it loads in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from mufin.errors import MufinError, shown
from mufin.serving.web.engine import Engine
from mufin.serving.web.jobs import settle
from mufin.serving.web.refusals import Refusal
from mufin.serving.web.service import Keeper, Service

logger = logging.getLogger("mufin.serve")
Load = Callable[[str], Service]  # a folder -> its recommender; raises MufinError


class Swaps:
    """Loads models, one at a time, and gives them to the device thread."""

    def __init__(self, engine: Engine, keeper: Keeper, load: Load):
        self.engine, self.keeper, self.load = engine, keeper, load
        self.lock = threading.Lock()

    def begin(self, folder: str) -> Future[dict]:
        """The `info` of the model in a folder, once it answers.

        Raises Refusal (409) while another model loads. The future raises Refusal (422) if the
        folder cannot be loaded; the present model then goes on.
        """
        if not self.lock.acquire(blocking=False):
            raise Refusal(409, "another model is being loaded; try again when it is", "folder")
        future: Future[dict] = Future()
        threading.Thread(target=self._run, args=(folder, future), name="model", daemon=True).start()
        return future

    def _run(self, folder: str, future: Future[dict]) -> None:
        try:
            result: dict | Refusal = self._swapped(folder)
        except Refusal as refusal:  # the server stops
            result = refusal
        except Exception as error:
            result = _not_loaded(folder, error)
        ok = isinstance(result, dict)
        if not ok:
            self.engine.forget()
        self.lock.release()
        self.engine.metrics.swaps.labels("yes" if ok else "no").inc()
        logger.log(logging.INFO if ok else logging.ERROR, "%s", _said(folder, result))
        settle(future, result)

    def _swapped(self, folder: str) -> dict:
        # What changes from now on is applied once more before the switch: whether or not
        # `restore` has read it from the store, the last change of a product wins.
        self.engine.record()
        service = self.load(folder)
        self.keeper.restore(service)
        return self.engine.switch(service).result()


def _not_loaded(folder: str, error: Exception) -> Refusal:
    if isinstance(error, MufinError):
        return Refusal(422, str(error), "folder")
    logger.error("a model was not loaded", exc_info=error)
    return Refusal(
        422, f"{shown(folder)} cannot be loaded ({type(error).__name__}: {error})", "folder"
    )


def _said(folder: str, result: dict | Refusal) -> str:
    if isinstance(result, dict):
        return f"model {result['id']} of {shown(folder)} answers from now on"
    return f"{result.text}; the model before it goes on, if there was one"

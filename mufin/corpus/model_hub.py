"""Pretrained models by name: the copy on this machine first, then one short try of the model hub.

The hub's own client asks again and again where there is no network, for three quarters of a minute.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from mufin.errors import shown

T = TypeVar("T")
TRY_SECONDS = 5.0  # for an answer of the hub, whatever it is
LOCAL = "local-dir:"  # before a folder, in names of timm


class HubUnreachable(OSError):
    """There is no whole copy of a model on this machine, and the model hub does not answer."""


def no_copy(setting: str, name: str, error: HubUnreachable) -> str:
    """The sentence for a model whose `setting` is `name`."""
    return (
        f"{setting} is {shown(name)}, of which there is no whole local copy, and {error}; set it "
        "to a local folder, or bring HF_HOME of another machine and set HF_HUB_OFFLINE=1"
    )


def loaded(name: str, load: Callable[[], T]) -> T:
    """What `load` returns for the model `name`, which may be a folder.

    `load` runs first without the network, and again with it if that failed; both times torch's
    random numbers are the same. Raises HubUnreachable, and what `load` raises.
    """
    from huggingface_hub import constants

    _hide_bars()
    if constants.HF_HUB_OFFLINE or _is_path(name):
        return load()
    state = torch.get_rng_state()
    # transformers, timm and the hub raise a dozen classes where a file is missing
    with contextlib.suppress(Exception), _offline():
        return load()
    torch.set_rng_state(state)
    if why := _refusal(constants.ENDPOINT):
        raise HubUnreachable(f"the model hub {constants.ENDPOINT} cannot be reached ({why})")
    print(f"{name}: no whole copy on this machine, downloading it", file=sys.stderr, flush=True)
    return load()


def _is_path(name: str) -> bool:
    """Whether it names a folder, which may be missing; a hub's have one slash at most."""
    path = name.removeprefix(LOCAL)
    return path != name or name[:1] in ("/", ".", "~") or name.count("/") > 1 or Path(path).is_dir()


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """In the block, as with HF_HUB_OFFLINE=1, which is read when the hub's client is imported."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


@cache
def _refusal(endpoint: str) -> str:
    """Why the hub does not answer a request; '' if it does, also with an error."""
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=TRY_SECONDS)
    except Exception as error:  # of the HTTP client, which differs between versions of the hub's
        return " ".join(str(error).split())[:60] or type(error).__name__
    return ""


def _hide_bars() -> None:
    """Hides the bars of the hub and of transformers, unless HF_HUB_DISABLE_PROGRESS_BARS is 0.

    transformers reads the hub's setting when it is imported.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is False:
        return
    disable_progress_bars()
    if (logs := sys.modules.get("transformers.utils.logging")) is not None:
        logs.disable_progress_bar()

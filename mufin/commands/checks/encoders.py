"""Encoders: is each a folder that exists, a copy on this machine, or can the model hub be asked?"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mufin.commands.checks.finding import FAILS, OK, Finding
from mufin.commands.checks.project import encoders_wanted
from mufin.inspection.check import GIVEN, LOCAL
from mufin.params import Params

SECONDS = 5.0  # for an answer of the hub, as in mufin/corpus/model_hub.py
YES = {"1", "on", "yes", "true"}


def encoders(params: Params, home: Path) -> Iterator[Finding]:
    """A finding per encoder that a run uses; `home` is where relative folders begin."""
    hub: str | None = None  # why it does not answer; asked once, and only if it must be
    for setting, name, weights, kind in encoders_wanted(params):
        if weights not in GIVEN and not (home / Path(weights).expanduser()).exists():
            text = f"{weights} does not exist"
            remedy = f"set {setting}.weights to pretrained, random or the path of a file"
            yield Finding(f"{setting}.weights", FAILS, text, remedy)
        elif weights == "random":
            yield Finding(setting, OK, f"{name}, from random weights: nothing is fetched")
        elif (found := _local(name, kind, home)) is not None:
            yield Finding(setting, *found)
        else:
            hub = unreachable() if hub is None else hub
            yield _from_hub(setting, name, hub)


def _local(name: str, kind: str, home: Path) -> tuple[str, str, str] | None:
    """(state, text, remedy) of a folder or of a copy; None where the hub must be asked."""
    folder = home / Path(name.removeprefix(LOCAL)).expanduser()
    if folder.is_dir():
        return OK, f"the folder {folder}", ""
    if name.startswith((LOCAL, "/", "./", "../", "~")) or name.count("/") > 1:
        return FAILS, f"the folder {folder} does not exist", "correct the path"
    repository = f"timm/{name}" if kind == "timm" else name
    pattern = f"models--{repository.replace('/', '--')}{'*' if kind == 'timm' else ''}"
    for copy in sorted(_cache().glob(f"{pattern}/snapshots/*/*")):
        return OK, f"{name}, of which {copy.parent} has a copy", ""
    return None


def _from_hub(setting: str, name: str, refusal: str) -> Finding:
    if not refusal:
        return Finding(setting, OK, f"{name}, which will be fetched from {_endpoint()}")
    text = f"{name} has no copy on this machine, and {_endpoint()} cannot be reached ({refusal})"
    remedy = f"set {setting}.name to a local folder, or bring HF_HOME of another machine"
    return Finding(setting, FAILS, text, remedy)


def _cache() -> Path:
    """The hub client's cache, as its environment variables say."""
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    return Path(own or Path(home, "hub")).expanduser()


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def unreachable() -> str:
    """Why the model hub does not answer; '' if it does, also with an error.

    In a thread that is left alone after a time: looking up a name has no timeout of its own.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in YES:
        return "HF_HUB_OFFLINE is set"
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(_asked()), daemon=True)
    thread.start()
    thread.join(2 * SECONDS)
    return answers[0] if answers else "no answer"


def _asked() -> str:
    try:
        request = urllib.request.Request(_endpoint(), method="HEAD")
        with urllib.request.urlopen(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""
    except Exception as error:  # of the network, of TLS, of a proxy, of a wrong HF_ENDPOINT
        return " ".join(str(error).split())[:80] or type(error).__name__

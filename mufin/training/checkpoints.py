"""Checkpoints: what a killed training run needs to resume to the same result, in one file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mufin.errors import MufinError
from mufin.nn.weights import weights_of
from mufin.training.optimisers import Optimisers


def save_checkpoint(
    path: Path, optimisers: Optimisers, tensors: dict[str, Tensor], facts: dict
) -> None:
    """Writes the network, the optimisers and the job's own `tensors` and `facts` to `path`.

    The file is replaced by a rename, so a kill leaves the old checkpoint or the new one. Raises
    OSError on a full disk and then leaves the old one.
    """
    content = {f"model/{n}": t for n, t in weights_of(optimisers.model).items()}
    for name, tensor in optimisers.state().items():
        content[f"optimiser/{name}"] = tensor.detach().cpu().contiguous()
    for name, tensor in tensors.items():
        content[f"job/{name}"] = tensor.cpu().contiguous()
    part = path.with_suffix(".part")
    try:
        copies = {n: t.clone() for n, t in content.items()}  # safetensors refuses shared memory
        save_file(copies, part, metadata={"facts": json.dumps(facts)})
        with open(part, "r+b") as file:
            os.fsync(file.fileno())  # some file systems report a full disk only here
        os.replace(part, path)
    except SafetensorError as error:
        part.unlink(missing_ok=True)
        if not (found := re.search(r"os error (\d+)", str(error))):
            raise
        # safetensors hides the number and the path of the error in its message
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def load_checkpoint(path: Path, optimisers: Optimisers) -> tuple[dict[str, Tensor], dict] | None:
    """Loads network and optimisers from `path`; returns the job's tensors and facts.

    Returns None if there is no checkpoint. Raises MufinError if it is broken.
    """
    if not path.exists():
        return None
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}, "job": {}}
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            for key in file.keys():
                kind, _, name = key.partition("/")
                parts[kind][name] = file.get_tensor(key)
    except SafetensorError as error:
        raise MufinError(
            f"{path} cannot be read ({error}); delete it; the stage then starts from the beginning"
        ) from None
    optimisers.model.load_state_dict(parts["model"])
    optimisers.load_state(parts["optimiser"])
    return parts["job"], facts

"""What a killed training run needs to go on to the same result, in one safetensors file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mufin.errors import MufinError
from mufin.nn.weights import weights_of
from mufin.training.optimisers import Optimisers


def save_checkpoint(
    path: Path, optimisers: Optimisers, tensors: dict[str, torch.Tensor], facts: dict
) -> None:
    """Model, optimiser and the job's own tensors and facts to `path`, by rename: a kill leaves the old one or the new.

    Raises OSError, and leaves the old one, where the disk is full.
    """
    content = {f"model/{n}": t for n, t in weights_of(optimisers.model).items()}
    content |= {
        f"optimiser/{n}": t.detach().cpu().contiguous() for n, t in optimisers.state().items()
    }
    content |= {f"job/{n}": t.cpu().contiguous() for n, t in tensors.items()}
    part = path.with_suffix(".part")
    try:
        save_file(
            {n: t.clone() for n, t in content.items()}, part, metadata={"facts": json.dumps(facts)}
        )
        with open(part, "r+b") as file:
            os.fsync(file.fileno())  # some file systems say only here that they are full
        os.replace(part, path)
    except SafetensorError as error:
        part.unlink(missing_ok=True)
        if not (found := re.search(r"os error (\d+)", str(error))):
            raise
        raise OSError(
            int(found[1]), os.strerror(int(found[1])), str(path)
        ) from error  # it names no file


def load_checkpoint(
    path: Path, optimisers: Optimisers
) -> tuple[dict[str, torch.Tensor], dict] | None:
    """Fill model and optimisers from `path`; the job's tensors and facts, or None where there is no checkpoint."""
    if not path.exists():
        return None
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimiser": {}, "job": {}}
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            for key in file.keys():
                kind, _, name = key.partition("/")
                parts[kind][name] = file.get_tensor(key)
    except SafetensorError as error:
        raise MufinError(
            f"{path} cannot be read ({error}); delete it, and the stage begins at its start"
        ) from None
    optimisers.model.load_state_dict(parts["model"])
    optimisers.load_state(parts["optimiser"])
    return parts["job"], facts

"""Checkpoints: what a killed training run needs to resume to the same result, in one file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mufin.artifacts.publication import sync
from mufin.errors import MufinError, shown
from mufin.nn.weights import weights_of


class Updates(Protocol):
    """What updates the weights of `model`: `Optimisers`, for Modules I and IV."""

    model: nn.Module
    before: list[nn.Parameter]  # whose gradients are summed over processes, see `distributed`
    sparse_before: list[nn.Parameter]
    after: list[nn.Parameter]

    def begin(self, factor: float, seed: int) -> None: ...  # before the backward pass of a step
    def step(self, factor: float) -> None: ...  # at `factor` times the peak learning rates
    def state(self) -> dict[str, Tensor]: ...  # for a checkpoint
    def load_state(self, state: dict[str, Tensor]) -> None: ...


def save_checkpoint(
    path: Path, optimisers: Updates, tensors: dict[str, Tensor], facts: dict
) -> None:
    """Writes the network, the optimisers and the job's own `tensors` and `facts` to `path`.

    The file is replaced by a rename, so a kill or a power failure leaves the old checkpoint or the
    new one. Its metadata has a hash of all that is in it. Raises OSError on a full disk and then
    leaves the old one.
    """
    content = {f"model/{n}": t for n, t in weights_of(optimisers.model).items()}
    for name, tensor in optimisers.state().items():
        content[f"optimiser/{name}"] = tensor.detach().cpu().contiguous()
    for name, tensor in tensors.items():
        content[f"job/{name}"] = tensor.cpu().contiguous()
    part = path.with_suffix(".part")
    try:
        copies = {n: t.clone() for n, t in content.items()}  # safetensors refuses shared memory
        said = json.dumps(facts)
        save_file(copies, part, metadata={"facts": said, "sha256": _hash(copies, said)})
        sync(part)  # some file systems report a full disk only here
        os.replace(part, path)
        sync(path.parent)
    except SafetensorError as error:
        part.unlink(missing_ok=True)
        if not (found := re.search(r"os error (\d+)", str(error))):
            raise
        # safetensors hides the number and the path of the error in its message
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def load_checkpoint(path: Path, optimisers: Updates) -> tuple[dict[str, Tensor], dict] | None:
    """Loads network and optimisers from `path`; returns the job's tensors and facts.

    Returns None if there is no checkpoint. Raises MufinError if it is broken.
    """
    if not path.exists():
        return None
    content, facts = _read(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}, "job": {}}
    for key, tensor in content.items():
        kind, _, name = key.partition("/")
        parts[kind][name] = tensor
    optimisers.model.load_state_dict(parts["model"])
    optimisers.load_state(parts["optimiser"])
    return parts["job"], facts


def _read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and facts of a checkpoint whose hash is right; raises MufinError otherwise."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            content = {key: file.get_tensor(key) for key in file.keys()}
        reason = "its bytes have changed"
    except (SafetensorError, OSError) as error:
        metadata, content, reason = {}, {}, shown(str(error))
    said = metadata.get("facts", "")
    if metadata.get("sha256") != _hash(content, said):
        raise MufinError(
            f"{path} is damaged ({reason}); delete it; the stage then starts from the beginning"
        )
    return content, json.loads(said)


def _hash(tensors: dict[str, Tensor], facts: str) -> str:
    """A hash over names, types, shapes and bytes of the tensors, and over the facts."""
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

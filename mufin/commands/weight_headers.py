"""The number of parameters in a safetensors file, from its header."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mufin.errors import ArtifactError

MOST = 2**26  # bytes of a header
# Tensors that are no parameters: statistics of batch norms, and of the descriptors
STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "mean", "scale", "std")


def parameters_of(path: Path) -> dict[str, int]:
    """{part of the network: parameters}; an encoder is a part of its own.

    Raises ArtifactError if the file is missing or has no such header.
    """
    counts: dict[str, int] = {}
    for name, shape in _shapes(path).items():
        if name.rpartition(".")[2] not in STATISTICS:
            part = _part(name)
            counts[part] = counts.get(part, 0) + math.prod(shape)
    return counts


def _part(name: str) -> str:
    """Such as `encoders.image` or `classifiers`."""
    words = name.split(".")
    return ".".join(words[:2]) if words[0] == "encoders" else words[0]


def _shapes(path: Path) -> dict[str, list[int]]:
    """{tensor: its shape}: 8 bytes with the length of a JSON object, then that object."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MOST:
                raise ValueError
            header = json.loads(file.read(length))
        shapes = {n: [int(x) for x in t["shape"]] for n, t in header.items() if n != "__metadata__"}
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; run `dvc repro`") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ArtifactError(
            f"{path} is damaged: its header cannot be read; `dvc checkout --force` restores it"
        ) from None
    return shapes

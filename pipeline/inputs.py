"""What several stages load alike: the curated splits, the descriptor store, the machine of a training run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import runtime
from pipeline.artifacts import Split, fingerprint, read_labels, read_split
from pipeline.corpus.descriptors import DescriptorStore
from pipeline.params import Params
from pipeline.training.loop import Machine


@dataclass(frozen=True, slots=True)
class Curated:
    """`data/curated`: labels and splits."""

    labels: np.ndarray      # (L,) int64, product of each label
    splits: dict[str, Split]

    @property
    def train(self) -> Split:
        return self.splits["train"]


def read_curated(folder: Path) -> Curated:
    return Curated(read_labels(folder / "labels.parquet"),
                   {name: read_split(folder / f"{name}.parquet") for name in ("train", "valid", "test")})


def open_store(folder: Path, params: Params) -> DescriptorStore:
    return DescriptorStore(folder, list(params.encoder.modalities), runtime.device())


def code() -> list[Path]:
    """The project's files that this process has imported: a change of any of them makes another run."""
    files = {m.__file__ for n, m in sys.modules.items() if n.startswith("pipeline") and getattr(m, "__file__", None)}
    files.add(sys.modules["__main__"].__file__)
    return sorted(Path(f) for f in files if f and f.endswith(".py"))


def machine(stage: str, params: object, inputs: list[Path], member: int) -> Machine:
    """Device, precision and the scratch folder of one member's training, named by what decides its result."""
    mark = fingerprint((params, member), inputs, code())
    return Machine(runtime.device(), runtime.precision(), runtime.scratch(stage, mark), runtime.checkpoint_seconds())

"""`data/embeddings/pretrain.safetensors`: labels and datapoints as embedded by Module I."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mufin.artifacts.contents import check
from mufin.artifacts.publication import publish
from mufin.errors import ArtifactError, shown


@dataclass(frozen=True, slots=True)
class PretrainEmbeddings:
    """All embeddings of Module I. D counts the dimensions of all members, side by side.

    x^1 is the vector of a datapoint, z^1 the vector of a label (MUFIN Sec. 3).
    """

    label_rows: np.ndarray  # (R, D) float32: the bag rows of all labels, unit norm
    label_offsets: np.ndarray  # (L + 1,) int64: where the rows of each label start, and R
    label_vectors: np.ndarray  # (L, D) float32: z^1
    centroids: np.ndarray  # (L, D) float32: the mean x^1 of a label's train datapoints
    train: np.ndarray  # (n, D) float32: x^1 of the train datapoints
    valid: np.ndarray
    test: np.ndarray

    def datapoints(self, split: str) -> np.ndarray:
        """(n, D) x^1 of the datapoints of `split`."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]


def write_embeddings(embeddings: PretrainEmbeddings, path: Path) -> None:
    """Publishes the folder of `path`, with all fields in this one safetensors file."""
    arrays = {f.name: np.ascontiguousarray(getattr(embeddings, f.name)) for f in fields(embeddings)}
    with publish(path.parent) as folder:
        folder.mkdir()
        save_file(arrays, folder / path.name)


def read_embeddings(path: Path) -> PretrainEmbeddings:
    """The embeddings that the stage retrieve wrote; raises ArtifactError if they are not whole."""
    check(path)
    try:
        return PretrainEmbeddings(**load_file(path))
    except (SafetensorError, TypeError, OSError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({shown(str(error))}); run `dvc repro retrieve`"
        ) from None

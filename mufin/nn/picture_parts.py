"""What E_V reads of the pictures, made in parts: one part per file of the image store.

A part is published by rename, so a stage that was killed goes on with the parts that are missing.
A part depends on nothing but the file, the encoder and the settings, so each can be made on another
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mufin.artifacts.arrays import ShardWriter
from mufin.artifacts.contents import contents_of
from mufin.artifacts.files import artifact_json, link_file, write_json
from mufin.artifacts.publication import publish
from mufin.corpus.decoding import NOT_STORED, decoded_files
from mufin.corpus.image_store import stored_keys
from mufin.corpus.outcomes import Decoded, Outcomes
from mufin.errors import MufinError
from mufin.nn.encoder import Encoder
from mufin.nn.frozen import frozen_inputs, to_int8

T = TypeVar("T")
BATCH = {"cuda": 256, "cpu": 16}  # pictures at once; on a CPU what fits into its cache
CHECKED = 1000  # pictures per part whose descriptors are compared
LEAST_COSINE = 0.999  # of a descriptor by int8 with that by float16
FACTS = "part.json"


@dataclass(frozen=True, slots=True)
class Reads:
    """What is stored of a picture: its pixels, or what the frozen part of E_V gives for them."""

    size: int  # pixels per side
    batch: int  # pictures at once
    device: torch.device
    precision: torch.dtype
    encoder: Encoder | None = None  # without one, pixels
    int8: bool = False  # activations in int8, not float16

    @property
    def name(self) -> str:
        """The name of the arrays in `data/precomputed`."""
        return "pixels" if self.encoder is None else "image_inputs"

    def of(self, pixels: np.ndarray, compare: bool) -> tuple[np.ndarray, float]:
        """Pixels (n, S, S, 3) uint8 -> what is stored, (n, ...), and a cosine.

        The cosine is the least one of a picture's descriptor by int8 with that by float16; 1 where
        nothing is stored in int8, or without `compare`, which takes time.
        """
        if self.encoder is None:
            return pixels, 1.0
        made = frozen_inputs(self.encoder, (torch.from_numpy(pixels),), self.device, self.precision)
        if not self.int8 or self.encoder.kind != "activations":
            return made, 1.0
        packed = to_int8(made)
        return packed, self._least_cosine(made, packed) if compare else 1.0

    @torch.inference_mode()
    def _least_cosine(self, activations: np.ndarray, packed: np.ndarray) -> float:
        assert self.encoder is not None
        self.encoder.eval()
        one, other = (self._descriptors(a) for a in (activations, packed))
        return float(torch.cosine_similarity(one, other).min())

    def _descriptors(self, inputs: np.ndarray) -> Tensor:
        assert self.encoder is not None
        with torch.autocast(self.device.type, self.precision, self.precision != torch.float32):
            return self.encoder(torch.from_numpy(inputs).to(self.device)).float()


def make_parts(wanted: Mapping[Path, set[str]], folder: Path, reads: Reads, workers: int) -> None:
    """Publishes in `folder` the part of each file of an image store, except those that are there.

    `wanted` are the keys to be read from each file (`image_store.stored_keys`). Raises MufinError
    if int8 changes a descriptor too much, and ArtifactError for a damaged store.
    """
    missing = {path: keys for path, keys in wanted.items() if not (folder / path.stem).exists()}
    # `closing`: if the encoder fails or the stage is ended, the decoding processes end at once
    with closing(decoded_files(missing, reads.size, workers)) as chunks:
        for path, of_file in groupby(chunks, key=itemgetter(0)):
            _make((pictures for _, pictures in of_file), folder / path.stem, reads)


def _make(chunks: Iterable[Decoded], target: Path, reads: Reads) -> None:
    """Publishes one part: arrays with a row per picture, and facts."""
    outcomes, keys, least = Outcomes(), list[str](), 1.0
    with publish(target) as folder:
        folder.mkdir()
        file = ShardWriter(folder, reads.name)
        for batch in batched(outcomes.kept(chunks), reads.batch):
            pixels = np.stack([pixels for _, pixels in batch])
            rows, cosine = reads.of(pixels, compare=len(keys) < CHECKED)
            least = least_allowed(min(least, cosine))
            file.add(rows)
            keys += [key for key, _ in batch]
        facts = {"keys": keys, "shards": file.close(), "outcomes": asdict(outcomes)}
        write_json(facts | {"cosine": least}, folder / FACTS)


def least_allowed(cosine: float) -> float:
    """`cosine`; raises MufinError if descriptors by int8 differ too much, also if it is NaN."""
    if not cosine >= LEAST_COSINE:
        raise MufinError(
            f"encoder.image.activations is int8, but a picture's descriptor then has the cosine "
            f"{cosine:.4f} with that by float16, below {LEAST_COSINE}; set it to float16"
        )
    return cosine


@dataclass(slots=True)
class Parts:
    """All parts together: which picture is in which row of the arrays."""

    row_of: np.ndarray  # (K,) int64 rows of the sorted keys, -1 for one that was not decoded
    shards: list[Path] = field(default_factory=list)  # the arrays, their rows one after the other
    outcomes: Outcomes = field(default_factory=Outcomes)
    cosine: float = 1.0  # the least of all that were compared
    # path -> size and SHA-256
    known: dict[Path, tuple[int, str]] = field(default_factory=dict)

    def add(self, folder: Path, keys: np.ndarray, start: int) -> int:
        """Adds a part whose first row is row `start`; returns the row after its last."""
        facts, files = artifact_json(folder / FACTS), contents_of(folder).files
        places = np.searchsorted(keys, np.array(facts["keys"], keys.dtype))
        self.row_of[places] = np.arange(start, start + len(places))
        for name in facts["shards"]:
            self.shards.append(folder / name)
            self.known[folder / name] = files[name]
        self.outcomes.add(Outcomes(**facts["outcomes"]))
        self.cosine = min(self.cosine, facts["cosine"])
        return start + len(places)


def parts_of(
    store: Path,
    keys: np.ndarray,
    folder: Path,
    make: Callable[[Mapping[Path, set[str]], Path], None],
) -> Parts:
    """Makes what is missing in `folder` of the pictures `keys` (K,), sorted, of an image store.

    `make` publishes there the parts of the files with these keys, as `make_parts` does. Rows are in
    the order of the store. Raises as `make`.
    """
    wanted, missing = stored_keys(store, keys)
    make(wanted, folder)
    parts, end = Parts(np.full(len(keys), -1, np.int64)), 0
    for path in wanted:
        end = parts.add(folder / path.stem, keys, end)
    for key in missing:
        parts.outcomes.drop(NOT_STORED, key)
    return parts


def link(parts: Parts, name: str, folder: Path) -> dict[str, tuple[int, str]]:
    """Links the arrays into `folder`; {`<name>-<number>.npy`: size and SHA-256}, in order.

    Where the file system of `folder` is another one, they are copied.
    """
    out = {}
    for number, source in enumerate(parts.shards):
        target = folder / f"{name}-{number:05d}.npy"
        link_file(source, target)
        out[target.name] = parts.known[source]
    return out


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter (itertools.batched needs Python 3.12)."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch

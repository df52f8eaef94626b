"""The precomputed descriptors of products, gathered into the batches that the network reads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mufin.artifacts.precomputed import Precomputed
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.errors import MufinError
from mufin.ragged import offsets_of


@dataclass(slots=True)
class DescriptorBatch:
    """n bags of at most `width` rows; the descriptors of each modality flat, with the bag (and row) that each goes to."""

    num_bags: int
    width: int
    modality: Tensor  # (n, width) int8: -1 empty, 0 text, 1 image, 2 lexical
    text: Tensor | None = None  # (n_text, T) int32, or what the frozen part of E_T gave
    text_lengths: Tensor | None = None  # (n_text,) int64
    text_bag: Tensor | None = None  # (n_text,) int64
    images: Tensor | None = None  # (n_images, S, S, 3) uint8, or what the frozen part of E_V gave
    image_bag: Tensor | None = None  # (n_images,) int64
    image_row: Tensor | None = None  # (n_images,) int64
    lexical_ids: Tensor | None = None  # (nnz,) int64
    lexical_offsets: Tensor | None = None  # (n_lexical,) int64
    lexical_bag: Tensor | None = None  # (n_lexical,) int64
    lexical_row: int = 0

    def to(self, device: torch.device) -> DescriptorBatch:
        """The batch on `device`, through pinned memory if that is a GPU."""
        moved = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and value.device != device:
                if device.type == "cuda" and value.device.type == "cpu":
                    value = value.pin_memory()
                value = value.to(device, non_blocking=True)
            moved[field.name] = value
        return DescriptorBatch(**moved)


class DescriptorStore:
    """`data/precomputed`, memory-mapped: batches of any products, in the modalities asked for.

    `device`: inputs are held there if they fit in half of its free memory, so that a step moves indices alone.
    """

    def __init__(
        self, folder: Path, modalities: list[str], device: torch.device = torch.device("cpu")
    ):
        stored = Precomputed(Path(folder))
        self.modalities, self.device = modalities, device
        manifest = stored.manifest()
        self.num_products: int = manifest["products"]
        if missing := set(modalities) - set(manifest["modalities"]):
            raise MufinError(
                f"{folder} was made without {sorted(missing)}; run `dvc repro precompute` with these in "
                "encoder.modalities"
            )
        if "image" in modalities:
            self.image_lists = stored.image_rows()
            self.images = self._held(stored.image_shards())
        if "text" in modalities:
            self.lengths = stored.token_lengths()
            self.text = self._held([stored.text_inputs()])
        if "lexical" in modalities:
            self.lexical = stored.lexical_rows()

    def _held(self, shards: list[np.ndarray]) -> Tensor | _Shards:
        """The shards on the device as one tensor where they fit, else as they are on disk."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if sum(s.nbytes for s in shards) < free / 2:
                like = torch.from_numpy(np.array(shards[0][:0]))
                held = like.new_empty((sum(map(len, shards)), *like.shape[1:]), device=self.device)
                for part, shard in zip(
                    held.split([len(s) for s in shards]), shards
                ):  # never held twice
                    part.copy_(torch.from_numpy(np.array(shard)))
                return held
        return _Shards(shards, pinned=self.device.type == "cuda")

    def batch(self, products: np.ndarray) -> DescriptorBatch:
        """The bags of `products` ((n,) rows of products); a product with nothing to show has an empty bag."""
        products, parts, columns = np.asarray(products), {}, []
        n = len(products)
        if "text" in self.modalities:
            parts |= self._text(products)
            columns.append(np.where(self.lengths[products] > 0, TEXT, -1)[:, None])
        if "lexical" in self.modalities:
            parts |= self._lexical(products) | {"lexical_row": len(columns)}
            counts = np.diff(self.lexical.offsets)[products]
            columns.append(np.where(counts > 0, LEXICAL, -1)[:, None])
        if "image" in self.modalities:
            positions, offsets = self.image_lists.positions(products)
            counts, rows = np.diff(offsets), self.image_lists.values[positions]
            bag = np.repeat(np.arange(n), counts)
            row = np.arange(len(bag)) - offsets[:-1][bag] + len(columns)
            if isinstance(self.images, _Shards) and self.images.pinned:
                # Read the files one after another, each from its start to its end. Not for a CPU, where one file and
                # several give the same bytes: another order of rows is another order of sums.
                order = np.argsort(rows, kind="stable")
                rows, bag, row = rows[order], bag[order], row[order]
            parts |= {
                "images": self._rows(self.images, rows),
                "image_bag": torch.from_numpy(bag),
                "image_row": torch.from_numpy(row),
            }
            columns.append(np.where(np.arange(counts.max(initial=0)) < counts[:, None], IMAGE, -1))
        modality = np.concatenate([np.full((n, 0), -1), *columns], 1).astype(np.int8)
        if not modality.shape[1]:
            modality = np.full((n, 1), -1, np.int8)
        return DescriptorBatch(n, modality.shape[1], torch.from_numpy(modality), **parts)

    @property
    def num_images(self) -> int:
        """Rows of the image arrays."""
        return len(self.images) if isinstance(self.images, Tensor) else int(self.images.starts[-1])

    def hold(self, name: str, outputs: np.ndarray) -> None:
        """Give `outputs` ((rows, width) float32: what the text or image encoder makes) in place of that encoder's inputs."""
        setattr(self, "text" if name == "text" else "images", self._held([outputs]))

    def hold_fused(self, outputs: np.ndarray, there: np.ndarray) -> None:
        """Give `outputs` ((P, width) float32: titles and pictures fused) as the one descriptor of the products `there`."""
        self.modalities, self.lengths = ["text"], there.astype(np.int64)
        self.hold("text", outputs)

    def text_rows(self, products: np.ndarray) -> tuple[Tensor, Tensor]:
        """Titles of `products`, cut to the longest of them (padding beyond it is work for nothing), and their lengths."""
        lengths = self.lengths[products]
        rows = self._rows(self.text, products)
        if rows.dim() > 2 or not rows.is_floating_point():
            rows = rows[:, : max(int(lengths.max(initial=0)), 1)]
        return rows, torch.from_numpy(lengths)

    def image_rows(self, rows: np.ndarray) -> Tensor:
        return self._rows(self.images, rows)

    def _text(self, products: np.ndarray) -> dict:
        bag = np.flatnonzero(self.lengths[products] > 0)
        rows, lengths = self.text_rows(products[bag])
        return {"text": rows, "text_lengths": lengths, "text_bag": torch.from_numpy(bag)}

    def _lexical(self, products: np.ndarray) -> dict:
        bag = np.flatnonzero(np.diff(self.lexical.offsets)[products] > 0)
        taken = self.lexical.take(products[bag])
        return {
            "lexical_ids": torch.from_numpy(taken.values.astype(np.int64)),
            "lexical_offsets": torch.from_numpy(taken.offsets[:-1]),
            "lexical_bag": torch.from_numpy(bag),
        }

    def _rows(self, held: Tensor | _Shards, rows: np.ndarray) -> Tensor:
        if isinstance(held, Tensor):
            return held[torch.from_numpy(np.asarray(rows, np.int64)).to(held.device)]
        return held.take(rows)


class _Shards:
    """Rows of several arrays of one shape after one another, as if they were one.

    `pinned`: rows are gathered into page-locked memory, from where a GPU reads them without another copy on the host.
    """

    def __init__(self, shards: list[np.ndarray], pinned: bool = False):
        self.shards, self.pinned = shards, pinned
        self.starts = offsets_of([len(s) for s in shards])
        self.like = torch.from_numpy(np.array(shards[0][:0]))

    def take(self, rows: np.ndarray) -> Tensor:
        """(len(rows), ...) in the order of `rows`, fastest where they ascend; raises MufinError outside of the arrays."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.starts[-1]:
            raise MufinError(
                f"rows {rows.min()} to {rows.max()} are asked of arrays of {self.starts[-1]}; the files in "
                "data/precomputed are not of one run: run `dvc repro -f precompute`"
            )
        order = (
            None
            if (rows[1:] >= rows[:-1]).all() or len(self.shards) == 1
            else np.argsort(rows, kind="stable")
        )
        ordered = rows if order is None else rows[order]
        out = torch.empty(
            (len(rows), *self.like.shape[1:]), dtype=self.like.dtype, pin_memory=self.pinned
        )
        ends = np.searchsorted(ordered, self.starts) if len(self.shards) > 1 else [0, len(rows)]
        for number in range(len(self.shards)):
            part = slice(ends[number], ends[number + 1])
            if (
                part.stop > part.start
            ):  # with `clip` numpy writes to `out` at once; the rows are in range
                np.take(
                    self.shards[number],
                    ordered[part] - self.starts[number],
                    axis=0,
                    out=out.numpy()[part],
                    mode="clip",
                )
        return out if order is None else out[torch.from_numpy(np.argsort(order))]

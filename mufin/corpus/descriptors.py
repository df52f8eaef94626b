"""The precomputed descriptors of products, gathered into the batches that the networks read.

A product is a bag of descriptors (MUFIN Sec. 3, Notation): texts, pictures and, in this project,
lexical terms. The first text is the title, if there is one. A batch has one bag per product.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mufin.artifacts.precomputed import Precomputed, one_each
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.corpus.ragged_tokens import RaggedTokens
from mufin.corpus.title_groups import by_length
from mufin.errors import MufinError
from mufin.ragged import Lists, offsets_of


@dataclass(slots=True)
class DescriptorBatch:
    """n bags of at most `width` descriptors; one flat array per modality holds the descriptors.

    A flat array has no padding. For each of its entries, `*_bag` is the number of its bag and
    `*_row` its place there. The first `text_places` places of all bags are for texts, then one is
    for lexical terms, if these are in use. E_T and E_V are the encoders of text and images. Texts
    come in `text_groups` of similar length, the shortest first, so that E_T need not compute the
    padding of all to the longest.
    """

    num_bags: int
    width: int
    modality: Tensor  # (n, width) int8: -1 empty, 0 text, 1 image, 2 lexical
    text: Tensor | None = None  # (n_text, T) int32 tokens, or outputs of the frozen part of E_T
    text_lengths: Tensor | None = None  # (n_text,) int64
    text_bag: Tensor | None = None  # (n_text,) int64
    text_row: Tensor | None = None  # (n_text,) int64
    text_places: int = 0
    text_groups: tuple[tuple[int, int], ...] = ()  # (texts, longest) of each; (): one group
    images: Tensor | None = None  # (n_images, S, S, 3) uint8, or outputs of the frozen part of E_V
    image_bag: Tensor | None = None  # (n_images,) int64
    image_row: Tensor | None = None  # (n_images,) int64
    lexical_ids: Tensor | None = None  # (nnz,) int64, the terms of all products in turn
    lexical_offsets: Tensor | None = None  # (n_lexical,) int64, where the terms of one start
    lexical_bag: Tensor | None = None  # (n_lexical,) int64
    fused: Tensor | None = None  # (n, V, width), see `hold_fused`; `text` then has no first texts

    @property
    def lexical_row(self) -> int:
        """The place of lexical terms, the same in all bags."""
        return self.text_places

    def to(self, device: torch.device) -> DescriptorBatch:
        """The batch on `device`; to a GPU through pinned memory, without waiting for the copy."""
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
    """`data/precomputed`, memory-mapped: the bags of any products in the chosen modalities.

    If `device` is a GPU and an array fits in half of its free memory, the array is copied there,
    and a batch then needs only indices from the host. Raises MufinError if `data/precomputed` lacks
    one of the modalities.
    """

    def __init__(
        self, folder: Path, modalities: list[str], device: torch.device = torch.device("cpu")
    ):
        stored = Precomputed(Path(folder))
        self.modalities, self.device = modalities, device
        self.fused: Tensor | _Rows | None = None
        self.with_images = "image" in modalities  # whether batches hold images
        manifest = stored.manifest()
        self.num_products: int = manifest["products"]
        if missing := set(modalities) - set(manifest["modalities"]):
            raise MufinError(
                f"{folder} was made without {sorted(missing)}; "
                "run `dvc repro precompute` with these in encoder.modalities"
            )
        if "image" in modalities:
            self.image_lists = stored.image_rows()
            self.images = self._held(stored.image_shards())
        if "text" in modalities:
            self.text_lists, self.lengths = stored.text_rows(), stored.token_lengths()
            self.text: Tensor | _Rows
            if stored.has_ragged_tokens():
                self.text = RaggedTokens(stored.text_inputs(), self.lengths)
            else:
                self.text = self._held([stored.text_inputs()])
        if "lexical" in modalities:
            self.lexical = stored.lexical_rows()

    @classmethod
    def of_arrays(
        cls,
        num_products: int,
        *,
        text: tuple[np.ndarray, np.ndarray] | tuple[np.ndarray, np.ndarray, Lists] | None = None,
        lexical: Lists | None = None,
        images: tuple[Lists, np.ndarray] | None = None,
    ) -> DescriptorStore:
        """A store of arrays in memory, with the modalities that are not None.

        `text`: the inputs of E_T, their (R,) lengths, and the (P,) rows of each product among them;
        without the latter each product has one text, or none if its length is 0. `lexical`: (P,)
        rows of term ids. `images`: (P,) rows of pictures of each product, and the inputs of E_V.
        """
        store = cls.__new__(cls)
        store.device, store.fused, store.num_products = torch.device("cpu"), None, num_products
        named = {"text": text, "image": images, "lexical": lexical}
        store.modalities = [name for name, given in named.items() if given is not None]
        store.with_images = images is not None
        if images is not None:
            store.image_lists, store.images = images[0], store._held([images[1]])
        if text is not None:
            store.text, store.lengths = store._held([text[0]]), text[1]
            store.text_lists = text[2] if len(text) > 2 else one_each(text[1])
        if lexical is not None:
            store.lexical = lexical
        return store

    @property
    def has_several_texts(self) -> bool:
        """Whether some product has more than one text."""
        return int(self.text_lists.lengths().max(initial=0)) > 1

    @property
    def num_texts(self) -> int:
        """The number of rows of the text arrays."""
        return len(self.lengths)

    @property
    def num_images(self) -> int:
        """The number of distinct pictures: rows of the image arrays."""
        return len(self.images) if isinstance(self.images, Tensor) else int(self.images.starts[-1])

    def batch(self, products: np.ndarray) -> DescriptorBatch:
        """The bags of `products`, (n,) row numbers; a product without descriptors has an empty bag.

        The order in a bag is texts, lexical terms, pictures.
        """
        products = np.asarray(products)
        modality = self._places(products)
        batch = DescriptorBatch(len(products), modality.shape[1], torch.from_numpy(modality))
        if self.fused is not None:
            batch.fused = self._rows(self.fused, products)
        if "text" in self.modalities:
            batch.text_places = self._text_places(products)
            if self.fused is None or batch.text_places > 1:
                self._add_text(batch, products)
        if "lexical" in self.modalities:
            self._add_lexical(batch, products)
        if self.with_images:
            self._add_images(batch, products)
        return batch

    def text_rows(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """The inputs of E_T for these rows of the text arrays, and their lengths, (n,) int64.

        Tokens and activations are cut to the longest of these texts, since padding costs time.
        """
        lengths = self.lengths[rows]
        inputs = self._rows(self.text, rows)
        if self._has_tokens:
            inputs = inputs[:, : max(int(lengths.max(initial=0)), 1)]
        return inputs, torch.from_numpy(lengths)

    @property
    def _has_tokens(self) -> bool:
        """Whether the inputs of E_T have a token axis: tokens (n, T) and activations (n, T, H).

        Float descriptors (n, H) have none.
        """
        like = self.text if isinstance(self.text, Tensor) else self.text.like
        return like.dim() > 2 or not like.is_floating_point()

    def image_rows(self, rows: np.ndarray) -> Tensor:
        """The inputs of E_V for these rows of the image arrays."""
        return self._rows(self.images, rows)

    def hold(self, name: str, outputs: np.ndarray) -> None:
        """Replace the inputs of an encoder, `name` "text" or "image", by its outputs.

        `outputs` is (rows, width) float32. Batches then hold the outputs as descriptors.
        """
        setattr(self, "text" if name == "text" else "images", self._held([outputs]))

    def hold_fused(self, outputs: np.ndarray, with_images: bool) -> None:
        """Replace the inputs of early fusion by its outputs, which batches then hold as `fused`.

        `outputs` is (P, V, width) float32, for V sets of modalities (`encoded.FUSED`). Batches hold
        no first texts, and images only with `with_images`, but still say what a product has.
        """
        self.fused, self.with_images = self._held([outputs]), with_images

    def _held(self, shards: list[np.ndarray]) -> Tensor | _Shards:
        """The shards as one tensor on the GPU if they fit there, otherwise as they are on disk."""
        on_gpu = self.device.type == "cuda"
        if not on_gpu:
            return _Shards(shards)
        free, _ = torch.cuda.mem_get_info(self.device)
        if sum(s.nbytes for s in shards) >= free / 2:
            return _Shards(shards, pinned=True)
        like = torch.from_numpy(np.array(shards[0][:0]))
        held = like.new_empty((sum(map(len, shards)), *like.shape[1:]), device=self.device)
        # Shard by shard, so that neither the host nor the GPU ever holds the whole twice.
        for part, shard in zip(held.split([len(s) for s in shards]), shards):
            part.copy_(torch.from_numpy(np.array(shard)))
        return held

    def _places(self, products: np.ndarray) -> np.ndarray:
        """(n, width) int8: the modality at each place of each bag, -1 where it is empty."""
        columns = [np.full((len(products), 0), -1)]
        if "text" in self.modalities:
            there = np.arange(self._text_places(products))
            counts = _counts(self.text_lists, products)
            columns.append(np.where(there < counts[:, None], TEXT, -1))
        if "lexical" in self.modalities:
            counts = _counts(self.lexical, products)
            columns.append(np.where(counts > 0, LEXICAL, -1)[:, None])
        if "image" in self.modalities:
            counts = _counts(self.image_lists, products)
            columns.append(np.where(np.arange(counts.max(initial=0)) < counts[:, None], IMAGE, -1))
        places = np.concatenate(columns, 1).astype(np.int8)
        # Attention needs a width of at least 1.
        return places if places.shape[1] else np.full((len(products), 1), -1, np.int8)

    def _text_places(self, products: np.ndarray) -> int:
        """How many places the bags of a batch have for texts: the most of a product, at least 1."""
        return int(_counts(self.text_lists, products).max(initial=1))

    def _add_text(self, batch: DescriptorBatch, products: np.ndarray) -> None:
        rows, bag, place = _entries(self.text_lists, products)
        if self.fused is not None:  # which holds the first texts
            rows, bag, place = (of[place > 0] for of in (rows, bag, place))
        if self._has_tokens:
            order, batch.text_groups = by_length(self.lengths[rows])
            rows, bag, place = rows[order], bag[order], place[order]
        batch.text, batch.text_lengths = self.text_rows(rows)
        batch.text_bag, batch.text_row = torch.from_numpy(bag), torch.from_numpy(place)

    def _add_lexical(self, batch: DescriptorBatch, products: np.ndarray) -> None:
        bag = np.flatnonzero(_counts(self.lexical, products) > 0)
        terms = self.lexical.take(products[bag])
        batch.lexical_ids = torch.from_numpy(terms.values.astype(np.int64))
        batch.lexical_offsets = torch.from_numpy(terms.offsets[:-1])
        batch.lexical_bag = torch.from_numpy(bag)

    def _add_images(self, batch: DescriptorBatch, products: np.ndarray) -> None:
        rows, bag, row = _entries(self.image_lists, products)
        row += batch.text_places + ("lexical" in self.modalities)
        if isinstance(self.images, _Shards) and self.images.pinned:
            # In this order, each memory-mapped file is read from its start to its end. On a CPU
            # the order of the bags stays: another order of rows is another order of floating-point
            # sums, and the result must not depend on the number of files.
            order = np.argsort(rows, kind="stable")
            rows, bag, row = rows[order], bag[order], row[order]
        batch.images = self.image_rows(rows)
        batch.image_bag = torch.from_numpy(bag)
        batch.image_row = torch.from_numpy(row)

    def _rows(self, held: Tensor | _Rows, rows: np.ndarray) -> Tensor:
        if isinstance(held, Tensor):
            return held[torch.from_numpy(np.asarray(rows, np.int64)).to(held.device)]
        return held.take(rows)


def _counts(lists: Lists, rows: np.ndarray) -> np.ndarray:
    """(n,) int64: how many values each of these rows has, without a pass over all rows."""
    return lists.offsets[rows + 1] - lists.offsets[rows]


def _entries(lists: Lists, products: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of these rows of `lists`; of each its place in `products`, and in its row."""
    positions, offsets = lists.positions(products)
    bag = np.repeat(np.arange(len(products)), np.diff(offsets))
    return lists.values[positions], bag, np.arange(len(bag)) - offsets[:-1][bag]


class _Shards:
    """The rows of several memory-mapped arrays, numbered as if they were one array.

    With `pinned`, rows are gathered into page-locked memory, which a GPU reads without another copy
    on the host.
    """

    def __init__(self, shards: list[np.ndarray], pinned: bool = False):
        self.shards, self.pinned = shards, pinned
        self.starts = offsets_of([len(s) for s in shards])  # the first row of each shard
        self.like = torch.from_numpy(np.array(shards[0][:0]))  # row shape and dtype

    def take(self, rows: np.ndarray) -> Tensor:
        """(len(rows), ...) in the order of `rows`; fastest if they ascend.

        Raises MufinError for a row that none of the arrays has.
        """
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.starts[-1]:
            raise MufinError(
                f"rows {rows.min()} to {rows.max()} are requested from arrays of {self.starts[-1]} "
                "rows; the files in data/precomputed come from different runs: "
                "run `dvc repro -f precompute`"
            )
        order = None  # set if the rows have to be sorted by shard
        if len(self.shards) > 1 and not (rows[1:] >= rows[:-1]).all():
            order = np.argsort(rows, kind="stable")
        ordered = rows if order is None else rows[order]
        shape = (len(rows), *self.like.shape[1:])
        out = torch.empty(shape, dtype=self.like.dtype, pin_memory=self.pinned)
        ends = np.searchsorted(ordered, self.starts) if len(self.shards) > 1 else [0, len(rows)]
        for number, shard in enumerate(self.shards):
            part = slice(ends[number], ends[number + 1])
            if part.stop == part.start:
                continue
            inside = ordered[part] - self.starts[number]
            # By default numpy gathers into a buffer and copies it to `out`. With `clip` it writes
            # to `out` at once; no row is clipped, since all are in range.
            np.take(shard, inside, axis=0, out=out.numpy()[part], mode="clip")
        return out if order is None else out[torch.from_numpy(np.argsort(order))]


_Rows = RaggedTokens | _Shards  # on the host

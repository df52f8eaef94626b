"""Bags and vectors of many products, in batches and without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mufin import process_group
from mufin.corpus.descriptors import DescriptorBatch, DescriptorStore
from mufin.nn.bags import Bag
from mufin.nn.mufin import Mufin
from mufin.progress import progress
from mufin.ragged import Lists, offsets_of

BATCH = 512  # products encoded at once
BLOCK = 2**13  # bag rows scaled at once


@dataclass(frozen=True, slots=True)
class Embedded:
    """n embedded products: the rows of their bags after A_S, ragged, and their vectors."""

    rows: np.ndarray  # (R, D) float32, X^1 of one product after the other
    modality: np.ndarray  # (R,) int8
    offsets: np.ndarray  # (n + 1,) int64
    vectors: np.ndarray  # (n, D) float32, unit norm
    search: np.ndarray | None = None  # (n, D) vectors for the search, if another network makes them

    @property
    def sizes(self) -> np.ndarray:
        """(n,) int64, descriptors of each product; 0 for a product that has none in use."""
        return np.diff(self.offsets)

    def take(self, index: np.ndarray) -> Embedded:
        """The products `index`, in that order."""
        if np.array_equal(index, np.arange(len(self.vectors))):
            return self  # without a copy
        positions, offsets = Lists(self.offsets, self.modality).positions(index)
        search = None if self.search is None else self.search[index]
        rows, modality = self.rows[positions], self.modality[positions]
        return Embedded(rows, modality, offsets, self.vectors[index], search)

    def bags(self, index: np.ndarray, device: torch.device, width: int | None = None) -> Bag:
        """The bags `index` as (len(index), m, D), padded to m = `width` rows or to the longest."""
        lengths = self.offsets[index + 1] - self.offsets[index]
        width = width or max(int(lengths.max(initial=0)), 1)
        mask = np.arange(width) < lengths[:, None]
        rows = np.zeros((*mask.shape, self.rows.shape[1]), np.float32)
        modality = np.full(mask.shape, -1, np.int8)
        at = (self.offsets[index][:, None] + np.arange(width))[mask]
        rows[mask], modality[mask] = self.rows[at], self.modality[at]
        return Bag(torch.from_numpy(rows).to(device), torch.from_numpy(modality).to(device))


@torch.inference_mode()
def embed(
    model: Mufin,
    store: DescriptorStore,
    products: np.ndarray,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int | None = None,
    modalities: set[int] | None = None,
) -> Embedded:
    """The embeddings of `products` (n,), row numbers of the store, in eval mode.

    With `modalities` (codes) the bags only hold descriptors of these. `batch_size` products, by
    default `BATCH`, are encoded at once.
    """
    rows, kinds, lengths, vectors = [], [], [], []
    size = batch_size or BATCH
    for bag, vector in _encoded(model, store, products, device, precision, size, modalities):
        vectors.append(vector)
        mask = bag.mask.cpu()
        rows.append(bag.rows.float().cpu()[mask])
        kinds.append(bag.modality.cpu()[mask])
        lengths.append(mask.sum(1))
    dim = model.dim
    return Embedded(
        _flat(rows, torch.zeros(0, dim)),
        _flat(kinds, torch.zeros(0, dtype=torch.int8)),
        offsets_of(_flat(lengths, torch.zeros(0, dtype=torch.int64))),
        _flat(vectors, torch.zeros(0, dim)),
    )


def _encoded(
    model: Mufin,
    store: DescriptorStore,
    products: np.ndarray,
    device: torch.device,
    precision: torch.dtype,
    size: int,
    modalities: set[int] | None = None,
) -> Iterator[tuple[Bag, Tensor]]:
    """The bags of each batch of `size` products, on the device, and their vectors on the CPU."""
    model.eval()
    for start in progress(range(0, len(products), size), "embed", f"batches of {size}"):
        batch = store.batch(products[start : start + size])
        if modalities is not None:
            _keep(batch, modalities)
        with torch.autocast(device.type, precision, precision != torch.float32):
            bag = model.bag(batch.to(device))
            vector = model.vector(bag).float().cpu()
        yield bag, vector


def _keep(batch: DescriptorBatch, modalities: set[int]) -> None:
    """Marks the descriptors of all other modalities as padding."""
    keep = torch.isin(batch.modality, torch.tensor(sorted(modalities), dtype=torch.int8))
    batch.modality[~keep] = -1


def _flat(parts: list[Tensor], empty: Tensor) -> np.ndarray:
    return torch.cat([empty, *parts]).numpy()


def centroids(vectors: np.ndarray, by_label: Lists) -> np.ndarray:
    """mu_l, the mean vector of a label's train datapoints, (L, D)  (MUFIN Sec. 3.1, Module II).

    `vectors` (n, D) float32 are x^1 of the train datapoints, `by_label` the datapoints of each
    label. A label without any gets zero.
    """
    sums = np.zeros((len(by_label), vectors.shape[1]), np.float32)
    np.add.at(sums, by_label.rows(), vectors[by_label.values])
    return sums / np.maximum(np.diff(by_label.offsets), 1)[:, None].astype(np.float32)


def embed_members(
    members: list[Mufin],
    store: DescriptorStore,
    products: np.ndarray,
    device: torch.device,
    precision: torch.dtype,
    modalities: set[int] | None = None,
) -> list[Embedded]:
    """`embed` by each member of an ensemble; all processes of the stage must call it.

    Each of them embeds its share, and all get all embeddings. The shares are whole batches, the
    same as of one process, and so are the bytes.
    """
    mine = products[process_group.share(len(products), BATCH)]
    return [
        _gathered(embed(m.to(device), store, mine, device, precision, None, modalities), device)
        for m in members
    ]


@torch.inference_mode()
def embed_vectors(
    members: list[Mufin],
    store: DescriptorStore,
    products: np.ndarray,
    device: torch.device,
    precision: torch.dtype,
) -> tuple[np.ndarray, np.ndarray]:
    """The `joint_vectors` of `embed_members`, and (n,) bool whether a product has any descriptor.

    The bags, which are many times larger, are not kept. All processes of the stage must call it.
    """
    mine = products[process_group.share(len(products), BATCH)]
    every: list[np.ndarray] = []
    for model in members:
        vectors, filled = [], []
        for bag, vector in _encoded(model.to(device), store, mine, device, precision, BATCH):
            vectors.append(vector)
            filled.append(bag.mask.any(1).cpu())
        there = process_group.gather(_flat(filled, torch.zeros(0, dtype=torch.bool)), device)
        every.append(process_group.gather(_flat(vectors, torch.zeros(0, model.dim)), device))
    return _joined(every), there


def _gathered(mine: Embedded, device: torch.device) -> Embedded:
    """The products of all processes."""
    rows, modality, sizes, vectors = (
        process_group.gather(part, device)
        for part in (mine.rows, mine.modality, mine.sizes, mine.vectors)
    )
    return Embedded(rows, modality, offsets_of(sizes), vectors)


def joint_vectors(embedded: list[Embedded]) -> np.ndarray:
    """(n, members x D) float32: the vectors of all members side by side, unit norm."""
    return _joined([e.vectors for e in embedded])


def _joined(vectors: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(vectors, 1)
    joined /= np.sqrt(len(vectors), dtype=np.float32)
    return joined


def search_vectors(embedded: list[Embedded]) -> np.ndarray:
    """`joint_vectors` of the vectors that the search of labels compares."""
    return joint_vectors(
        [e if e.search is None else replace(e, vectors=e.search) for e in embedded]
    )


def joint_rows(embedded: list[Embedded]) -> np.ndarray:
    """(R, members x D) float32: the bag rows of all members side by side, unit norm.

    The paper does not say whether rows are normalised for the search. After the LayerNorm of A_S a
    row has length sqrt(D), but a centroid at most 1. Without normalisation hardly any centroid
    would be found, and in beta c + (1 - beta) a the similarity a would dominate the classifier
    score c. So all similarities are cosines.
    """
    widths = [e.rows.shape[1] for e in embedded]
    out = np.empty((len(embedded[0].rows), sum(widths)), np.float32)
    for start in range(0, len(out), BLOCK):  # beside the result, a copy of few rows is held
        at = slice(start, start + BLOCK)
        for e, column in zip(embedded, np.cumsum(widths) - widths):
            out[at, column : column + e.rows.shape[1]] = unit_rows(e.rows[at])
    out /= np.sqrt(len(embedded), dtype=np.float32)
    return out


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """`rows` scaled to norm 1; zero rows stay zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

"""Bags and vectors of many products, in batches, without gradients (Modules II and IV, index, evaluate)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.bags import Bag
from mufin.nn.mufin import Mufin
from mufin.progress import progress
from mufin.ragged import Lists, offsets_of


@dataclass(frozen=True, slots=True)
class Embedded:
    """n products embedded: ragged bag rows after A_S, and the vectors."""

    rows: np.ndarray  # (R, D) float32, X^1 of all products one after the other
    modality: np.ndarray  # (R,) int8
    offsets: np.ndarray  # (n + 1,) int64
    vectors: np.ndarray  # (n, D) float32, unit norm

    def bags(self, index: np.ndarray, device: torch.device, width: int | None = None) -> Bag:
        """The bags of `index`, padded to `width` rows (default: the longest of them), (len(index), m, D)."""
        lengths = np.diff(self.offsets)[index]
        width = width or max(int(lengths.max(initial=0)), 1)
        mask = np.arange(width) < lengths[:, None]
        rows = np.zeros((*mask.shape, self.rows.shape[1]), np.float32)
        modality = np.full(mask.shape, -1, np.int8)
        at = (self.offsets[:-1][index][:, None] + np.arange(width))[mask]
        rows[mask], modality[mask] = self.rows[at], self.modality[at]
        return Bag(torch.from_numpy(rows).to(device), torch.from_numpy(modality).to(device))


@torch.inference_mode()
def embed(
    model: Mufin,
    store: DescriptorStore,
    products: np.ndarray,
    device: torch.device,
    precision: torch.dtype,
    batch_size: int = 512,
    modalities: set[int] | None = None,
) -> Embedded:
    """Embed `products` ((n,) rows of the store) in eval mode; `modalities` leaves other descriptors out of the bags."""
    model.eval()
    rows, kinds, lengths, vectors = [], [], [], []
    for start in progress(range(0, len(products), batch_size), "embed", f"batches of {batch_size}"):
        batch = store.batch(products[start : start + batch_size])
        if modalities is not None:
            keep = torch.isin(batch.modality, torch.tensor(sorted(modalities), dtype=torch.int8))
            batch.modality[~keep] = -1
        with torch.autocast(device.type, precision, precision != torch.float32):
            bag = model.bag(batch.to(device))
            vectors.append(model.vector(bag).float().cpu())
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


def _flat(parts: list[Tensor], empty: Tensor) -> np.ndarray:
    return torch.cat([empty, *parts]).numpy()


def centroids(vectors: np.ndarray, by_label: Lists) -> np.ndarray:
    """mu_l = the mean of a label's train datapoint vectors, (L, D); zero for a label with none (Sec. 3.1, Module II)."""
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
    """`products` embedded by each member; `modalities` (codes) leaves other descriptors out."""
    return [
        embed(m.to(device), store, products, device, precision, modalities=modalities)
        for m in members
    ]


def joint_vectors(embedded: list[Embedded]) -> np.ndarray:
    """(n, members x D) float32: x^1 of all members side by side, unit norm."""
    return np.concatenate([e.vectors for e in embedded], 1) / np.sqrt(
        len(embedded), dtype=np.float32
    )


def joint_rows(embedded: list[Embedded]) -> np.ndarray:
    """(R, members x D) float32: bag rows of all members side by side, unit norm.

    The paper leaves their length open. After A_S's LayerNorm a row is sqrt(D) long: it would drown the centroids (of norm
    1 at most) in the search, and the classifier's score in beta c + (1 - beta) a. So similarities are cosines throughout.
    """
    return np.concatenate([unit_rows(e.rows) for e in embedded], 1) / np.sqrt(
        len(embedded), dtype=np.float32
    )


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of norm 1; zero stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

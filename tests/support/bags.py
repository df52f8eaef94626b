"""Random bags, and tiny networks over descriptors that are given: for tests of all but encoders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from mufin.artifacts.precomputed import Precomputed
from mufin.nn.assembly import Architecture, assemble
from mufin.nn.bags import Bag
from mufin.nn.mufin import Mufin, Projection
from mufin.ragged import Lists


def random_bag(
    n: int, m: int, dim: int, seed: int = 0, dtype=torch.float64, empty: bool = False
) -> Bag:
    """n bags of at most m rows. Each has its first row, but `empty` leaves bag 0 without any."""
    g = torch.Generator().manual_seed(seed)
    modality = torch.randint(-1, 3, (n, m), generator=g).to(torch.int8)
    modality[:, 0] = 0
    if empty:
        modality[0] = -1
    rows = torch.randn(n, m, dim, generator=g, dtype=dtype) * (modality >= 0).unsqueeze(-1)
    return Bag(rows, modality)


def shaken(module: nn.Module, seed: int = 0, std: float = 0.4) -> nn.Module:
    """Random weights in the place of the identity, which most blocks start from."""
    g = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        with torch.no_grad():
            p.copy_(torch.randn(p.shape, generator=g) * std)
    return module


class Given(nn.Module):
    """An encoder whose inputs are descriptors already, times a trained matrix."""

    def __init__(self, width: int):
        super().__init__()
        self.width, self.linear = width, nn.Linear(width, width)

    def forward(self, x, lengths=None):
        return self.linear(x)


class GivenStore:
    """Stands for `DescriptorStore`: all products have a title vector, two of three a picture's."""

    def __init__(self, n: int, width: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.text, self.images = (
            torch.from_numpy(rng.normal(size=(n, width)).astype(np.float32)) for _ in range(2)
        )

    def batch(self, products: np.ndarray):
        return GivenBatch(self, np.asarray(products))


class GivenBatch(SimpleNamespace):
    """Stands for `DescriptorBatch`."""

    def __init__(self, store: GivenStore, products: np.ndarray):
        n, seen = len(products), np.flatnonzero(products % 3)
        modality = np.full((n, 2), -1, np.int8)
        modality[:, 0], modality[seen, 1] = 0, 1
        super().__init__(
            num_bags=n,
            width=2,
            modality=torch.from_numpy(modality),
            text=store.text[products],
            text_lengths=None,
            text_bag=torch.arange(n),
            text_row=torch.zeros(n, dtype=torch.int64),
            text_places=1,
            text_groups=(),
            images=store.images[products[seen]],
            image_bag=torch.from_numpy(seen),
            image_row=torch.ones(len(seen), dtype=torch.int64),
            lexical_ids=None,
        )

    def to(self, device):
        """The same batch, with its tensors moved to `device`."""
        vars(self).update(
            {n: t.to(device) for n, t in vars(self).items() if isinstance(t, torch.Tensor)}
        )
        return self


def architecture(**changes) -> Architecture:
    """Of a network without encoders, with vectors of 8 numbers, one head and no dropout."""
    settings = dict(
        modalities=[],
        dim=8,
        projection="linear",
        standardise=False,
        text_dropout=0.0,
        image_dropout=0.0,
        modality_dropout=0.0,
        gates=False,
        image_gate=0.0,
        heads=1,
        dropout=0.0,
        a_s="attention",
    )
    return Architecture(**settings | changes)


def bare_mufin(**changes) -> Mufin:
    """What lies above the encoders: A_S, A_C (or what replaces them) and the pooling."""
    return assemble(architecture(**changes), Precomputed(Path("not-read")), None)


def given_mufin(width: int, dim: int = 8, dropout: float = 0.0, **changes) -> Mufin:
    """A network over descriptors of `width` numbers that are given."""
    encoders = {m: Given(width) for m in ("text", "image")}
    projections = {m: Projection(width, dim, "linear", dropout) for m in encoders}
    model = bare_mufin(dim=dim, dropout=dropout, **changes)
    model.encoders.update(encoders)
    model.projections.update(projections)
    return model


def tiny_mufin(width: int = 12, dim: int = 8, seed: int = 0, dropout: float = 0.0) -> Mufin:
    """MUFIN over given descriptors, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    return given_mufin(width, dim, dropout)


def random_graph(n: int, labels: int, most: int = 5, seed: int = 0) -> Lists:
    """n datapoints with 1 to `most` distinct labels each; every label has a datapoint."""
    rng = np.random.default_rng(seed)
    rows = [set(rng.choice(labels, rng.integers(1, most + 1), replace=False)) for _ in range(n)]
    for label in range(labels):
        rows[label % n].add(label)
    return Lists.of_rows([sorted(r) for r in rows])

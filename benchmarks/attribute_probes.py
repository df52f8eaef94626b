"""Linear probes: what can be read of a product's attributes from the vectors of a network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mufin.baselines.shared.bilinear_softmax import BilinearSoftmax, Penalties, fitted
from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.nn.mufin import Mufin
from mufin.ragged import Lists

KINDS = {"titles": TEXT, "words": LEXICAL, "pictures": IMAGE}  # of the rows of a bag
PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of weights on standardised vectors; chosen on valid
BATCH = 256  # products embedded at once


@torch.inference_mode()
def network_vectors(
    networks: list[Mufin],
    store: DescriptorStore,
    products: np.ndarray,
    device: torch.device,
    precision: torch.dtype,
) -> dict[str, np.ndarray]:
    """{name: (n, width) float32} vectors of `products` (n,), those of all networks side by side.

    `X^0, titles`, `X^1, pictures` and so on: the mean row of the modality before and after A_S, and
    whether there is one; `X^0, all` and `X^1, all`: all modalities side by side; `x^1`: the vector.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for network in networks:
        network.to(device).eval()
        batches = [
            _batch_vectors(network, store, products[start : start + BATCH], device, precision)
            for start in range(0, len(products), BATCH)
        ]
        for name in batches[0]:
            parts.setdefault(name, []).append(np.concatenate([batch[name] for batch in batches]))
    return {name: np.concatenate(arrays, 1) for name, arrays in parts.items()}


def _batch_vectors(
    network: Mufin,
    store: DescriptorStore,
    products: np.ndarray,
    device: torch.device,
    precision: torch.dtype,
) -> dict[str, np.ndarray]:
    batch = store.batch(products).to(device)
    with torch.autocast(device.type, precision, precision != torch.float32):
        bags = {"X^0": network.pre_embeddings(batch), "X^1": network.bag(batch)}
        vector = network.vector(bags["X^1"])
    out = {}
    for name, bag in bags.items():
        rows, modality = bag.rows.float().cpu().numpy(), bag.modality.cpu().numpy()
        means = {kind: mean_rows(rows, modality == code) for kind, code in KINDS.items()}
        found = {kind: mean for kind, mean in means.items() if kind in _used(network)}
        out |= {f"{name}, {kind}": mean for kind, mean in found.items()}
        out[f"{name}, all"] = np.concatenate(list(found.values()), 1)
    return out | {"x^1": vector.float().cpu().numpy()}


def _used(network: Mufin) -> list[str]:
    """The kinds of rows that the bags of a network have."""
    if network.fuses:  # title and pictures are one row, marked as text
        return ["titles"]
    names = {"titles": "text", "words": "lexical", "pictures": "image"}
    return [kind for kind in KINDS if names[kind] in network.encoders]


def mean_rows(rows: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(n, D + 1): the mean of the `rows` (n, m, D) that are `there` (n, m) bool, and 1 if any is.

    Zeros where none is.
    """
    count = there.sum(1, keepdims=True)
    total = (rows * there[:, :, None]).sum(1)
    return np.concatenate([total / np.maximum(count, 1), count > 0], 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Scale:
    """Standardises vectors by the mean and standard deviation of those of train."""

    mean: np.ndarray  # (width,)
    deviation: np.ndarray  # (width,), 1 for a constant

    @classmethod
    def of(cls, train: np.ndarray) -> Scale:
        deviation = train.std(0)
        return cls(train.mean(0), np.where(deviation > 1e-6, deviation, 1))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        return ((vectors - self.mean) / self.deviation).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Probe:
    """Multinomial logistic regression from vectors to the values of one attribute."""

    scale: Scale
    model: BilinearSoftmax

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """(n, values) float64 of `vectors` (n, width)."""
        scores = self.model.scores(self.scale(vectors)).astype(np.float64)
        odds = np.exp(scores - scores.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)


def probe(
    train: np.ndarray,
    train_codes: np.ndarray,
    valid: np.ndarray,
    valid_codes: np.ndarray,
    values: int,
) -> Probe:
    """The probe of `train` (n, width) whose penalty has the highest likelihood on `valid`.

    `train_codes` (n,) and `valid_codes` are in [0, values). Without valid: the second penalty.
    """
    scale = Scale.of(train)
    truth = Lists(np.arange(len(train) + 1), train_codes)
    every = np.ones(train.shape[1], bool)
    nothing = np.zeros((values, 0), np.float32)  # values have no attributes of their own
    probes = [
        Probe(scale, fitted(scale(train), nothing, truth, every, Penalties(free=penalty)))
        for penalty in (PENALTIES if len(valid) else PENALTIES[1:2])
    ]

    def likelihood(one: Probe) -> float:
        read = one.probabilities(valid)[np.arange(len(valid)), valid_codes]
        return float(np.log(np.maximum(read, 1e-12)).sum())

    return max(probes, key=likelihood)

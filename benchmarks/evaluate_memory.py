"""Memory and time of the scores of evaluate: label sides that are held, and in blocks of labels.

python -m benchmarks.evaluate_memory --labels 20000 --out benchmarks/results/evaluate_memory.json
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.timing import tell
from mufin import devices
from mufin.nn.bags import Pooling
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.embedding import Embedded
from mufin.nn.mufin import Mufin
from mufin.nn.no_self_attention import NoSelfAttention
from mufin.ragged import offsets_of
from mufin.ranking.scoring import classifier_scores, label_sides


def main(
    labels: int = 20_000,
    datapoints: int = 500,
    shortlist: int = 100,
    longest: int = 16,
    mean: float = 5.9,
    dim: int = 192,
    most: int = 2**26,
    out: Annotated[Path | None, typer.Option()] = None,
):
    """Scores of `datapoints` x `shortlist`; bags of `mean` rows, at most `longest`, of `dim`."""
    device = devices.device()
    torch.manual_seed(0)
    network = _network(labels, dim)
    rows, x = (_bags(n, longest, mean, dim, n) for n in (labels, datapoints))
    rng = np.random.default_rng(0)
    ids = np.stack([rng.choice(labels, shortlist, replace=False) for _ in range(datapoints)])
    facts, scores = {}, {}
    # The peak of a process never falls, so the smaller one comes first.
    for name, size in {"in blocks": most, "held": 2**62}.items():
        before, start = _peak(), time.perf_counter()
        sides = label_sides([network], [rows], device, most=size)
        scores[name] = classifier_scores(sides, [x], ids, device)
        facts[name] = {
            "seconds": round(time.perf_counter() - start, 2),
            "more_memory_mb": round(_peak() - before, 1),
        }
        if sides.held is not None:
            taken = sum(t.numel() * t.element_size() for t in sides.held[0].tensors())
            facts[name]["bytes_per_label"] = round(taken / labels)
    difference = float(np.abs(scores["held"] - scores["in blocks"]).max())
    tell(
        f"{datapoints} x {shortlist} scores of {labels} labels, bags of {mean} x {dim} rows, at "
        f"most {longest}, {device}; largest difference {difference:.1e}",
        facts,
        out,
    )


def _network(labels: int, dim: int) -> Mufin:
    network = Mufin({}, {}, dim, NoSelfAttention(), CrossAttention(dim), Pooling())
    network.classifiers = LabelClassifiers(labels, dim)
    return network.eval()


def _bags(n: int, longest: int, mean: float, dim: int, seed: int) -> Embedded:
    rng = np.random.default_rng(seed)
    sizes = np.clip(rng.poisson(mean - 1, n) + 1, 1, longest)
    sizes[0] = longest
    rows = rng.normal(size=(sizes.sum(), dim)).astype(np.float32)
    vectors = rng.normal(size=(n, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embedded(rows, np.zeros(sizes.sum(), np.int8), offsets_of(sizes), vectors)


def _peak() -> float:
    """MB: the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    typer.run(main)

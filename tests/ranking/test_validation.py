"""The figures on valid that can choose an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.artifacts.curated import Split
from mufin.metrics import precision_at_k
from mufin.nn.embedding import embed
from mufin.ragged import Lists
from mufin.ranking import validation
from mufin.ranking.validation import valid_figures
from tests.support.indexes import CPU, LABEL_PRODUCTS, LABELS, networks, store


@pytest.mark.parametrize("cells", [2 * LABELS, 2**24], ids=["blocks", "at once"])
@pytest.mark.parametrize("shortlisted", [False, True])
def test_figures_are_those_of_a_loop_over_pairs(shortlisted, cells, monkeypatch):
    monkeypatch.setattr(validation, "CELLS", cells)
    [network] = networks(1)
    rng = np.random.default_rng(0)
    products = np.array([1, 4, 9, 16, 25, 27])
    lists = [Lists.of_rows([rng.permutation(LABELS)[:w] for _ in products]) for w in (4, 2, 7)]
    split, candidates = Split(products, *lists[:2]), lists[2] if shortlisted else None
    figures = valid_figures(network, store(), LABEL_PRODUCTS, split, candidates, CPU, torch.float32)
    with torch.no_grad():
        x = embed(network, store(), products, CPU, torch.float32).bags(np.arange(6), CPU)
        z = embed(network, store(), LABEL_PRODUCTS, CPU, torch.float32)
        bags = z.bags(np.arange(LABELS), CPU)
        w = network.classifier(torch.arange(LABELS), torch.from_numpy(z.vectors))
        ranked = np.full((6, 5), -1)
        for i in range(6):
            mine = range(LABELS) if candidates is None else candidates[i].tolist()
            scores = {
                j: float(network.adapted(x[i : i + 1], bags[j : j + 1])[0] @ w[j])
                for j in mine
                if j not in split.excluded[i]
            }
            best = sorted(scores, key=lambda j, s=scores: -s[j])[:5]
            ranked[i, : len(best)] = best
    assert figures == {
        f"P@{k}": pytest.approx(precision_at_k(ranked, split.labels, k, split.excluded))
        for k in (1, 5)
    }
    assert 0 < figures["P@5"] < 100

"""Losses of the rivals against slow loops over triplets, blanks and pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mufin.baselines.outfits import adde_o, csa_net, s_val, ssvr
from mufin.baselines.outfits.backbone import Architecture
from mufin.baselines.outfits.batches import batch_of
from mufin.baselines.outfits.losses import (
    Triplets,
    hinge,
    same_type_similarity,
    visual_semantic,
)
from tests.support.tiny_outfits import TYPES, tiny

ITEMS, OUTFITS = tiny(8)
BATCH = batch_of(ITEMS, OUTFITS, 3, np.random.default_rng(0))
DRAWN = torch.Generator().manual_seed(3)
X = torch.randn(len(BATCH.rows), 6, generator=DRAWN)
TITLES = torch.randn(len(BATCH.rows), 6, generator=DRAWN)
HAS = (torch.rand(len(BATCH.rows), generator=DRAWN) < 0.7).float()
TRIPLETS = Triplets(*BATCH.triplets())
ROWS = list(zip(*(part.tolist() for part in TRIPLETS)))


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm())


def loss(near: float, away: float, margin: float) -> float:
    return max(0.0, near - away + margin)


def test_a_hinge_is_the_mean_over_what_is_there():
    near, away = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 1.0, 9.0])
    assert hinge(near, away, 0.3).item() == pytest.approx(1.3 / 3)
    assert hinge(near, away, 0.7, torch.tensor([1.0, 0.0, 1.0])).item() == pytest.approx(0.1)
    assert hinge(near, away, 0.7, torch.zeros(3)).item() == 0


def test_positive_and_negative_are_nearer_than_the_given_item():
    """L_sim of Vasileva et al."""
    total = [
        (loss(far(X[p], X[n]), far(X[g], X[n]), 0.3) + loss(far(X[p], X[n]), far(X[g], X[p]), 0.3))
        / 2
        for g, p, n in ROWS
    ]
    found = same_type_similarity(X, TRIPLETS, 0.3).item()
    assert found == pytest.approx(np.mean(total), rel=1e-4)


def test_a_picture_is_nearest_to_its_own_title():
    """L_vse of Vasileva et al.; items without a title are left out."""
    total = 0.0
    for own, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        for other in others:
            losses = [
                loss(far(X[r[own]], TITLES[r[own]]), far(X[r[other]], TITLES[r[own]]), 0.3)
                for r in ROWS
                if HAS[r[own]]
            ]
            total += np.mean(losses) / 6
    found = visual_semantic(X, TITLES, HAS, TRIPLETS, 0.3).item()
    assert found == pytest.approx(total, rel=1e-4)


def test_the_outfit_ranking_loss_takes_the_nearest_semi_hard_negative():
    torch.manual_seed(0)
    model, types = csa_net.CsaNet(TYPES, 6, Architecture()), BATCH.types
    total = []
    for given, positive, wrong in zip(BATCH.given, BATCH.positive, BATCH.negatives):

        def distance(answer, given=given):
            pairs = [(int(g), int(answer)) for g in given if g >= 0]
            each = [model.distance(X[g], types[g], X[a], types[a]).item() for g, a in pairs]
            return np.mean(each)

        near, away = distance(positive), [distance(n) for n in wrong if n >= 0]
        above = [d for d in away if d > near]
        total.append(loss(near, min(above) if above else max(away), 0.3))
    found = csa_net.outfit_ranking(model, X, BATCH, 0.3).item()
    assert found == pytest.approx(np.mean(total), rel=1e-4)


def test_a_label_triplet_compares_the_mean_of_equals_with_a_semi_hard_other():
    value = torch.tensor([0, 0, 1, 1, 1, 2])
    x = X[:6]
    total = []
    for i in range(5):  # the last has no equal
        equals = [far(x[i], x[j]) for j in range(6) if j != i and value[j] == value[i]]
        others = [far(x[i], x[j]) for j in range(6) if value[j] != value[i]]
        above = [d for d in others if d > np.mean(equals)]
        total.append(loss(np.mean(equals), min(above) if above else max(others), 0.3))
    assert adde_o.label_triplet(x, value).item() == pytest.approx(np.mean(total), rel=1e-4)
    assert adde_o.label_triplet(x, torch.zeros(6, dtype=torch.long)).item() == 0


def test_consistency_pulls_to_the_own_prototype():
    part, prototypes, value = normalize(X[:4], dim=1), X[4:7], torch.tensor([0, 2, 1, 0])
    total = []
    for i in range(4):
        away = [far(part[i], normalize(p, dim=0)) for p in prototypes]
        near = away.pop(int(value[i]))
        above = [d for d in away if d > near]
        total.append(loss(near, min(above) if above else max(away), 0.3))
    found = adde_o.consistency(part, prototypes, value).item()
    assert found == pytest.approx(np.mean(total), rel=1e-4)


def test_gram_matrices_are_mean_products_of_maps():
    maps = torch.randn(2, 3, 4, 5, generator=DRAWN)
    found = s_val.gram(maps)
    for n in range(2):
        pairs = [(i, j) for i in range(3) for j in range(i, 3)]
        expected = [float((maps[n, i] * maps[n, j]).mean()) for i, j in pairs]
        np.testing.assert_allclose(found[n], expected, rtol=1e-5, atol=1e-7)


def test_histograms_count_what_is_not_white():
    pictures = torch.rand(3, 3, 4, 4, generator=DRAWN)
    pictures[0, :, :2] = 1
    pictures[1] = 1  # nothing but white
    found = s_val.histogram(pictures)
    for n in range(3):
        pixels = pictures[n].flatten(1).T.numpy()
        shown = [p for p in pixels if (p < 1).any()] or list(pixels)
        for channel in range(3):
            values = [p[channel] for p in shown]
            counts, _ = np.histogram(values, s_val.BINS, (0, 1))
            np.testing.assert_allclose(found[n, channel], counts / len(values), atol=1e-6)


def test_a_patch_is_told_from_those_of_other_pictures():
    one, other = normalize(X[:5], dim=1), normalize(X[5:10], dim=1)
    total = []
    for a, b in ((one, other), (other, one)):
        for i in range(5):
            odds = [float(a[i] @ b[j]) / s_val.TEMPERATURE for j in range(5)]
            total.append(np.log(np.exp(odds).sum()) - odds[i])
    assert s_val.same_picture(one, other).item() == pytest.approx(np.mean(total), rel=1e-4)


def test_a_match_is_the_nearest_of_the_same_type_in_another_outfit():
    match, found = ssvr.nearest_alike(X, BATCH.types, BATCH.outfit)
    for i in range(len(X)):
        possible = [
            j
            for j in range(len(X))
            if BATCH.types[j] == BATCH.types[i] and BATCH.outfit[j] != BATCH.outfit[i]
        ]
        assert bool(found[i]) == bool(possible)
        if possible:
            assert int(match[i]) == min(possible, key=lambda j, i=i: far(X[i], X[j]))

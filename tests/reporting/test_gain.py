"""The chosen example, and the plane of the drawing beside it."""

from __future__ import annotations

import numpy as np
import pytest

from mufin.reporting.gain import best_example, plane


def test_the_example_has_the_most_descriptors_on_both_sides():
    hits = np.array([[True, False], [True, True], [False, True]])
    others = np.array([[2, 9], [3, 4], [9, 4]])
    assert best_example(hits, np.array([9, 3, 3]), others) == (1, 1)
    assert best_example(np.zeros((2, 2), bool), np.ones(2), np.ones((2, 2))) is None


def test_the_plane_keeps_distances_of_points_on_one():
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.normal(size=(7, 2)))[0].T
    flat = rng.normal(size=(5, 2)) @ axes + rng.normal(size=7)
    points, share = plane(flat)
    np.testing.assert_allclose(distances(points), distances(flat), atol=1e-9)
    assert share == pytest.approx(1)


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)

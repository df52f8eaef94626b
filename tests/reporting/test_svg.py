"""Drawings: text is escaped, cells can be read, curves have their ends."""

from __future__ import annotations

import re

import numpy as np

from mufin.reporting import svg
from tests.reporting.study import HOSTILE, Page


def test_cells_of_the_heat_map_can_be_read_at_any_weight():
    for weight in np.linspace(0, 1, 101):
        colours = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in svg.shade(weight)]
        dark, light = sorted(map(svg.luminance, colours))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_text_of_drawings_is_escaped():
    points = np.random.default_rng(0).normal(size=(2, 2))
    drawing = svg.arrows(points, ["<b>", "&"], [(0, 0), (0, 1)], [(0, 1)], HOSTILE)
    assert "<b>" not in drawing and "<script" not in drawing and Page(drawing).open == []


def test_a_curve_names_the_ends_of_both_axes():
    drawing = svg.curve(np.array([[1, 5.0], [2, 4.25], [3, 2.5]]), "loss")
    assert set(re.findall(r">([\d.]+)</text>", drawing)) == {"5", "2.5", "1", "3"}
    assert drawing.count("<circle") == 3 and Page(drawing).open == []


def test_a_curve_of_one_epoch_is_drawn():
    assert "nan" not in svg.curve(np.array([[1, 5.0]]), "loss")

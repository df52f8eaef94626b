"""Resizing by another library: Pillow's pixels, but for one level of rounding."""

from __future__ import annotations

import numpy as np
from cykooz_resizer import CpuExtensions, Resizer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mufin.corpus import resizing
from mufin.corpus.resizing import resized
from tests.support.hostile_pictures import scene

SIDES = st.integers(1, 700)


def difference(image: Image.Image, width: int, height: int) -> np.ndarray:
    """(height, width, bands) int: levels between our pixels and those of Pillow."""
    ours = resized(image, width, height)
    assert ours.mode == image.mode and ours.size == (width, height)
    pillow = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.abs(np.asarray(ours, int) - np.asarray(pillow, int))


def contained(image: Image.Image, size: int) -> tuple[int, int]:
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return width, height


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 300), st.sampled_from(["RGB", "CMYK"]), st.integers(0, 9))
def test_noise_is_within_one_level_of_pillow(width, height, size, mode, seed):
    bands = len(mode) if mode == "CMYK" else 3
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)
    image = Image.fromarray(noise, mode)
    assert difference(image, *contained(image, size)).max() <= 2
    assert (difference(image, *contained(image, size)) > 1).mean() < 1e-3


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(16, 300), st.integers(2, 60), st.integers(0, 9))
def test_hard_edges_are_within_two_levels_of_pillow(width, height, size, cell, seed):
    """Squares of the darkest and the brightest value; Pillow clips what its filter adds there."""
    shape = (height // cell + 1, width // cell + 1, 3)
    coarse = np.random.default_rng(seed).integers(0, 2, shape, np.uint8) * 255
    fine = coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    image = Image.fromarray(np.ascontiguousarray(fine))
    assert difference(image, *contained(image, size)).max() <= 2


def test_all_instructions_give_the_same_pixels(monkeypatch):
    class Slow(Resizer):
        def __init__(self):
            super().__init__()
            self.cpu_extensions = CpuExtensions.none

    image = scene(500, 375)
    fast = np.asarray(resized(image, 224, 168))
    monkeypatch.setattr(resizing, "Resizer", Slow)
    assert np.array_equal(np.asarray(resized(image, 224, 168)), fast)


def test_a_small_picture_is_resized_by_pillow():
    assert not difference(scene(127, 128), 50, 51).any()

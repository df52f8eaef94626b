"""Activations in int8: bounded error, exact zeros, the factor in the last bytes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mufin.nn.frozen import SCALE_BYTES, as_floats, to_int8

FINITE = st.floats(-60000, 60000, width=16)


@given(arrays(np.float16, st.tuples(*[st.integers(1, 4)] * 2, st.integers(1, 9)), elements=FINITE))
def test_an_error_is_at_most_half_a_level(activations):
    packed = to_int8(activations)
    assert packed.dtype == np.int8
    assert packed.shape == (*activations.shape[:2], activations.shape[2] + SCALE_BYTES)
    back = as_floats(torch.from_numpy(packed), torch.float32).numpy()
    largest = np.abs(activations.astype(np.float32)).max(-1, keepdims=True)
    assert (np.abs(back - activations.astype(np.float32)) <= largest / 254 * (1 + 1e-4)).all()
    assert (back[activations == 0] == 0).all()


def test_floats_stay_as_they_are():
    stored = torch.randn(2, 3, 4).half()
    assert torch.equal(as_floats(stored, torch.float32), stored.float())

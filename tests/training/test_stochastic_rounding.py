"""Stochastic rounding: unbiased, to a neighbour, with random numbers that depend on their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mufin.training.stochastic_rounding import high_half, low_half, random_bits, rounded

CPU = torch.device("cpu")
DRAWS = 40_000


def neighbours(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of bfloat16 next to `x` towards zero and away from it; `x` if it is one."""
    towards = (x.view(torch.int32) & ~0xFFFF).view(torch.float32)
    away = (towards.view(torch.int32) + 0x10000).view(torch.float32)
    return towards, torch.where(towards == x, x, away)


@pytest.mark.parametrize("half", [low_half, high_half])
@pytest.mark.parametrize("value", [1.0005, -0.3331, 1e-20, -7.7e8, 1.0 + 2**-8])
def test_the_mean_of_many_roundings_is_the_number(half, value):
    x = torch.full((DRAWS // 16, 16), value)
    found = rounded(x, half(random_bits(0, *x.shape, 3, CPU))).double()
    (low,), (high,) = (t[:1, 0].double() for t in neighbours(x))
    share = (x[0, 0].double() - low) / (high - low)
    error = (high - low).abs() * (share * (1 - share) / DRAWS).sqrt()
    assert abs(found.mean() - x[0, 0].double()) < 4 * error


@given(
    st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=1, max_size=20),
    st.integers(0, 0xFFFF),
)
def test_a_number_moves_to_a_neighbour_alone(values, noise):
    x = torch.tensor(values, dtype=torch.float32)
    found = rounded(x, torch.full(x.shape, noise, dtype=torch.int32)).float()
    towards, away = neighbours(x)
    assert ((found == towards) | (found == away)).all()


def test_numbers_of_bfloat16_infinity_and_nan_stay():
    x = torch.tensor([0.0, 1.5, -3.0e-39, torch.inf, -torch.inf, torch.nan, torch.finfo().max])
    x[2] = x[2].bfloat16().float()
    kept = x[:6]
    found = rounded(kept, torch.full((6,), 0xFFFF, dtype=torch.int32))
    assert found.float().equal(kept) or (found.float()[:5].equal(kept[:5]) and found[5].isnan())


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**33), st.integers(1, 5), st.integers(1, 9))
def test_random_bits_are_those_of_a_slow_hash(seed, first, rows, width):
    key = int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0])

    def mixed(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    expected = [
        [mixed((mixed(row % 2**32 ^ key) + column * 0x9E3779B9) % 2**32) for column in range(width)]
        for row in range(first, first + rows)
    ]
    found = random_bits(first, rows, width, seed, CPU).long() % 2**32
    assert found.tolist() == expected


def test_random_bits_do_not_depend_on_the_blocks():
    whole = random_bits(0, 50, 7, 5, CPU)
    assert torch.cat([random_bits(n, 10, 7, 5, CPU) for n in range(0, 50, 10)]).equal(whole)
    assert (random_bits(0, 50, 7, 6, CPU) == whole).float().mean() < 0.01


def test_neighbouring_draws_are_not_correlated():
    draws = [random_bits(0, 400, 100, seed, CPU) for seed in (0, 1)]
    halves = [half(bits).double() for bits in draws for half in (low_half, high_half)]
    several = [*halves, halves[0].roll(1, 0), halves[0].roll(1, 1)]
    correlation = torch.corrcoef(torch.stack([t.flatten() for t in several]))
    assert (correlation - torch.eye(len(several))).abs().max() < 5 / 400 / 100**0.5 * 10
    assert all(abs(t.mean() / 2**16 - 0.5) < 0.01 for t in halves)

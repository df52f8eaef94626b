"""Stochastic rounding to bfloat16, whose random numbers depend only on their place in a run."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# A number of float32 has 16 more bits of mantissa than one of bfloat16
DROPPED = 16
LOW = (1 << DROPPED) - 1


def rounded(x: Tensor, noise: Tensor) -> Tensor:
    """`x` in float32 rounded to bfloat16, up or down at random; its mean is `x`.

    `noise` has 16 random bits per number, int32 in [0, 2^16). Adding them below the bits that stay
    carries with a probability of the part that is dropped. Numbers that bfloat16 holds stay as they
    are; infinity and NaN do too.
    """
    bits = x.contiguous().view(torch.int32) + noise
    moved = (bits & ~LOW).view(torch.float32)
    return torch.where(x.isfinite(), moved, x).to(torch.bfloat16)  # exact, or not finite


def random_bits(first: int, rows: int, width: int, seed: int, device: torch.device) -> Tensor:
    """32 random bits for each number of the rows [first, first + rows), (rows, width) int32.

    A hash of seed, row and column: the same numbers for any split of the rows into blocks, on any
    device and in any process, without a state that a checkpoint would have to hold.
    """
    key = int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0])
    at = torch.arange(first, first + rows, device=device).to(torch.int32)
    row = _mixed(at ^ _signed(key)).unsqueeze(1)
    column = torch.arange(width, device=device, dtype=torch.int32) * _signed(0x9E3779B9)
    return _mixed(row + column)


def low_half(bits: Tensor) -> Tensor:
    """The lower 16 of 32 random bits, as `rounded` takes them."""
    return bits & LOW


def high_half(bits: Tensor) -> Tensor:
    """The upper 16 of 32 random bits, as `rounded` takes them."""
    return (bits >> DROPPED) & LOW


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers in which each bit depends on all others.

    Constants of Wellons' hash prospector (lowbias32); shifts of int32 copy the sign, hence masks.
    """
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _signed(0x7FEB352D)
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * _signed(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)


def _signed(x: int) -> int:
    """The int32 with the bits of `x`, an unsigned 32-bit integer."""
    return x - (1 << 32) if x >= 1 << 31 else x

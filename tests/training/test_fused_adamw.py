"""AdamW in bfloat16 with stochastic rounding: it follows torch's in float32, in any blocks."""

from __future__ import annotations

import pytest
import torch
from torch import optim

from mufin.training.fused_adamw import FusedAdamW

ROWS, DIM = 60, 8


def in_float32(start: torch.Tensor, gradients: list[torch.Tensor], lr: float) -> torch.Tensor:
    table = start.float().clone().requires_grad_()
    optimiser = optim.AdamW([table], lr, weight_decay=0.01)
    for gradient in gradients:
        table.grad = gradient.clone()
        optimiser.step()
    return table.detach()


def in_half(
    start: torch.Tensor, gradients: list[torch.Tensor], lr: float, block: int = ROWS
) -> FusedAdamW:
    made = FusedAdamW(start.bfloat16().clone(), 0.01)
    for seed, gradient in enumerate(gradients):
        made.begin(lr, seed)
        for first in range(0, len(start), block):
            made.update(first, gradient[first : first + block])
    return made


def test_tiny_updates_follow_float32_where_nearest_rounding_stalls():
    start, gradients = torch.ones(200, 50), [torch.full((200, 50), 0.1)] * 200
    exact = in_float32(start, gradients, 1e-4)  # each update is a fortieth of a step of bfloat16
    moved = in_half(start, gradients, 1e-4).table.float()
    nearest = start.bfloat16().requires_grad_()
    optimiser = optim.AdamW([nearest], 1e-4, weight_decay=0.01)
    for gradient in gradients:
        nearest.grad = gradient.bfloat16()
        optimiser.step()
    assert (nearest == 1).all() and exact.mean() < 0.981
    assert moved.mean() == pytest.approx(float(exact.mean()), abs=4e-4)


def test_random_gradients_move_the_table_as_in_float32():
    g = torch.Generator().manual_seed(0)
    start = torch.randn(ROWS, DIM, generator=g).bfloat16().float()
    gradients = [torch.randn(ROWS, DIM, generator=g) * 1e-3 + 5e-4 for _ in range(300)]
    exact, ours = in_float32(start, gradients, 1e-3), in_half(start, gradients, 1e-3)
    apart, moved = ours.table.float() - exact, exact - start
    assert apart.norm() < 0.25 * moved.norm()  # the random walk of 300 roundings
    assert abs(apart.mean()) < 0.02 * moved.abs().mean()


def test_the_second_moment_decays_without_gradients():
    gradients = [torch.ones(ROWS, DIM)] + [torch.zeros(ROWS, DIM)] * 1000
    made = in_half(torch.ones(ROWS, DIM), gradients, 1e-3)
    assert made.second.float().mean() == pytest.approx(1e-3 * 0.999**1000, rel=0.05)


@pytest.mark.parametrize("block", [1, 7, 59])
def test_blocks_of_rows_give_the_same_bytes(block):
    g = torch.Generator().manual_seed(0)
    gradients = [torch.randn(ROWS, DIM, generator=g) for _ in range(20)]
    whole, parts = (in_half(torch.ones(ROWS, DIM), gradients, 1e-2, size) for size in (ROWS, block))
    for name in ("table", "first", "second"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name

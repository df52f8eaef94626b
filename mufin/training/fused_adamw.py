"""AdamW of a table in bfloat16, whose rows are updated block by block in the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from mufin.training.stochastic_rounding import high_half, low_half, random_bits, rounded

BETAS, EPS = (0.9, 0.999), 1e-8  # as torch's AdamW


class FusedAdamW:
    """AdamW of one table (L, D) in bfloat16, whose blocks of rows are updated one after the other.

    Table and moments are rounded stochastically. Most updates of the table and all decays of the
    second moment are smaller than half a step of bfloat16, so that nearest rounding would drop
    them; the first moment would stay 2 % below a steady gradient. `begin` comes before each
    backward pass.
    """

    def __init__(self, table: Tensor, weight_decay: float):
        table.requires_grad_(False)  # autograd must not make a gradient of all rows
        self.table, self.weight_decay = table, weight_decay
        self.first, self.second = torch.zeros_like(table), torch.zeros_like(table)
        self.steps, self.rate, self.seed = 0, 0.0, 0

    def begin(self, rate: float, seed: int) -> None:
        """Learning rate and random numbers of the step whose backward pass comes next."""
        self.steps, self.rate, self.seed = self.steps + 1, rate, seed

    @torch.no_grad()
    def update(self, first: int, gradient: Tensor) -> None:
        """Updates the rows from `first` on, by their `gradient` (b, D) float32."""
        count, width = gradient.shape
        table, mean, square = (
            t[first : first + count] for t in (self.table, self.first, self.second)
        )
        m = mean.float().lerp_(gradient, 1 - BETAS[0])
        v = square.float().mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrected = [1 - beta**self.steps for beta in BETAS]
        scale = v.sqrt().div_(corrected[1] ** 0.5).add_(EPS)
        new = table.float().mul_(1 - self.rate * self.weight_decay)
        new.addcdiv_(m, scale, value=-self.rate / corrected[0])
        bits = random_bits(first, count, width, self.seed, gradient.device)
        # The first moment shares the bits of the table: the mean of each is right all the same, and
        # only the moments, whose ratio counts, must be independent of each other.
        low = low_half(bits)
        table.copy_(rounded(new, low))
        mean.copy_(rounded(m, low))
        square.copy_(rounded(v, high_half(bits)))

    def state(self) -> dict[str, Tensor]:
        """Moments and step count."""
        return {
            "exp_avg": self.first,
            "exp_avg_sq": self.second,
            "step": torch.tensor(self.steps),
        }

    def load(self, key: str, value: Tensor) -> None:
        """Restores an entry of `state`."""
        if key == "step":
            self.steps = int(value)
        else:
            {"exp_avg": self.first, "exp_avg_sq": self.second}[key].copy_(value)

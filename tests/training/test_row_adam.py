"""RowAdam beside torch's SparseAdam."""

from __future__ import annotations

import pytest
import torch

from mufin.training.row_adam import RowAdam

ROWS, DIM = 50, 7


def tables(*kinds):
    """A table and its optimiser of each kind, all with the same numbers."""
    start = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0))
    out = []
    for kind in kinds:
        table = torch.nn.Embedding(ROWS, DIM, sparse=True)
        table.weight.data.copy_(start)
        out.append((table, kind(table.parameters(), lr=0.03)))
    return out


def steps(table, optimiser, drawn):
    """A step on each of the drawn rows, each at its own rate."""
    for number, rows in enumerate(drawn):
        optimiser.param_groups[0]["lr"] = 0.03 / (1 + number)
        (table(rows) ** 2 * torch.arange(1.0, DIM + 1)).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


@pytest.mark.parametrize("repeated", [False, True])
def test_rows_get_the_bits_of_torch(repeated):
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randint(ROWS, (20,), generator=generator) for _ in range(12)]
    if not repeated:
        drawn = [rows.unique() for rows in drawn]
    drawn.append(torch.zeros(0, dtype=torch.int64))
    (ours, of_ours), (theirs, of_theirs) = tables(RowAdam, torch.optim.SparseAdam)
    steps(ours, of_ours, drawn)
    steps(theirs, of_theirs, drawn)
    assert torch.equal(ours.weight, theirs.weight)
    state, expected = of_ours.state[ours.weight], of_theirs.state[theirs.weight]
    assert list(state) == list(expected) and state["step"] == expected["step"] == 13
    assert all(torch.equal(state[key], expected[key]) for key in ("exp_avg", "exp_avg_sq"))


def test_rows_without_a_gradient_stay():
    [(table, optimiser)] = tables(RowAdam)
    before = table.weight.detach().clone()
    steps(table, optimiser, [torch.tensor([3, 5]), torch.tensor([5])])
    changed = (table.weight != before).any(1).nonzero().squeeze(1).tolist()
    assert changed == [3, 5]

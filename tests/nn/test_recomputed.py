"""Encoders in pieces: the descriptors and gradients of one call, and less kept in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mufin.nn import recomputed
from mufin.nn.recomputed import InPieces
from tests.support.bags import GivenStore, tiny_mufin


def encoder(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [(nn.Linear(8, 8), nn.GELU(), nn.Dropout(dropout)) for _ in range(6)]
    return nn.Sequential(*(module for layer in layers for module in layer))


def kept_and_gradients(run: Callable[[Tensor], Tensor], of: nn.Module) -> tuple[int, list[Tensor]]:
    """Numbers that the forward pass keeps, and what a backward pass gives all weights."""
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run(x)
    kept = sum(sizes)
    out.square().sum().backward()
    return kept, [p.grad for p in of.parameters() if p.grad is not None]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(recomputed, "PIECE", 7)


def test_gradients_are_those_of_one_call_and_less_is_kept():
    plain, pieces = encoder(), encoder()
    kept, gradients = kept_and_gradients(plain, plain)
    less, others = kept_and_gradients(InPieces(pieces), pieces)
    assert less < kept / 4
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_is_that_of_the_forward_pass():
    of = encoder(dropout=0.5)
    _, first = kept_and_gradients(InPieces(of), of)
    model = encoder(dropout=0.5)
    pieces = nn.ModuleList([model])  # the same pieces, kept whole
    _, second = kept_and_gradients(
        lambda x: torch.cat([model(piece) for piece in x.split(7)]), pieces
    )
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)


def test_an_encoder_of_batch_statistics_gets_all_rows():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8)
    x = torch.randn(40, 8)
    torch.testing.assert_close(InPieces(norm)(x), nn.BatchNorm1d(8)(x))
    assert int(norm.num_batches_tracked) == 1
    seen: list[int] = []
    norm.eval().register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    InPieces(norm)(x)
    assert max(seen) == 7


def test_a_network_learns_the_same_with_its_encoders_in_pieces():
    found = []
    for recompute in (False, True):
        model = tiny_mufin(12)
        model.recompute = recompute
        bags = model.bag(GivenStore(30, 12).batch(np.arange(30)))
        model.vector(bags).square()[:, 0].sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], msg=name)

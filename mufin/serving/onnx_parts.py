"""The parts of a network that become ONNX graphs.

What ONNX has no operator for is computed in another way while it is traced, and by the network
itself otherwise. So a comparison of graph and part is one with the network.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mufin.nn.bags import Bag
from mufin.nn.encoder import Encoder
from mufin.nn.given_vectors import GivenVectors
from mufin.nn.mufin import LexicalBag, Mufin, Projection


class Descriptors(nn.Module):
    """Titles or pictures to the rows that they have in a bag: both parts of an encoder, projected.

    The frozen part runs here too. Its activations are rounded to float16, as precompute stores
    them (`rounds`).
    """

    def __init__(self, network: Mufin, name: str):
        super().__init__()
        self.encoder, self.projection = network.encoders[name], network.projections[name]
        self.plain = _plain(self.projection)
        self.rounds = cast(Encoder, self.encoder).kind == "activations"

    def forward(self, *inputs: Tensor) -> Tensor:
        encoder = cast(Encoder, self.encoder)
        first = inputs[0]
        if encoder.kind != "inputs" and not isinstance(encoder, GivenVectors):
            first = encoder.frozen(*inputs)
        if self.rounds:
            first = first.half()
        projection = self.plain if torch.jit.is_tracing() else self.projection
        return projection(encoder(first, *inputs[1:]))


class Words(nn.Module):
    """Title words, padded, to the row that they have in a bag: the mean of their vectors."""

    def __init__(self, network: Mufin):
        super().__init__()
        self.encoder = cast(LexicalBag, network.encoders["lexical"])
        self.projection = network.projections["lexical"]

    def forward(self, terms: Tensor, lengths: Tensor) -> Tensor:
        there = torch.arange(terms.shape[1]) < lengths[:, None]
        if not torch.jit.is_tracing():
            starts = lengths.cumsum(0) - lengths
            return self.projection(self.encoder(terms[there], starts))
        rows = self.encoder.embedding.weight[terms] * there.unsqueeze(-1)
        return self.projection(rows.sum(1) / lengths.clamp_min(1)[:, None])


class Bags(nn.Module):
    """X^0 to the vector x^1 and to X^1."""

    def __init__(self, network: Mufin):
        super().__init__()
        self.attention, self.pooling = network.self_attention, network.pooling

    def forward(self, rows: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        out = self.attention(rows, modality >= 0)
        return self.pooling(Bag(out, modality)), out


class Pairs(nn.Module):
    """X^1 and Z^1 of aligned pairs to x^{2,l}."""

    def __init__(self, network: Mufin):
        super().__init__()
        self.attention, self.pooling = network.cross_attention, network.pooling

    def forward(self, x: Tensor, x_modality: Tensor, z: Tensor, z_modality: Tensor) -> Tensor:
        return self.attention.adapted(Bag(x, x_modality), Bag(z, z_modality), self.pooling)


def _plain(module: nn.Module) -> nn.Module:
    """What computes the same in eval mode without spectral norms and uneven max pooling.

    Weights are shared, and `module` stays as it is.
    """
    if isinstance(module, nn.Linear) and parametrize.is_parametrized(module):
        plain = nn.Linear(module.in_features, module.out_features)
        plain.load_state_dict({"weight": module.weight, "bias": module.bias})
        return plain
    if isinstance(module, Projection) and module.linear is None and len(module.mean) % module.dim:
        return _UnevenMaxPool(module)
    shared = copy.copy(module)
    shared._modules = {name: child and _plain(child) for name, child in module._modules.items()}
    return shared


class _UnevenMaxPool(nn.Module):
    """A `Projection` by adaptive max pooling where D does not divide the width.

    Group i of the features is [floor(i width / D), ceil((i + 1) width / D)), as in torch.
    """

    places: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, projection: Projection):
        super().__init__()
        width, dim = len(projection.mean), projection.dim
        groups = [range(i * width // dim, -(-(i + 1) * width // dim)) for i in range(dim)]
        longest = max(len(group) for group in groups)
        filled = [[*group, *[group[-1]] * (longest - len(group))] for group in groups]
        self.register_buffer("places", torch.tensor(filled))
        self.register_buffer("mean", projection.mean)
        self.register_buffer("scale", projection.scale)

    def forward(self, descriptors: Tensor) -> Tensor:
        """(n, width) -> (n, D)."""
        x = (descriptors.float() - self.mean) * self.scale
        return x[:, self.places].amax(-1)

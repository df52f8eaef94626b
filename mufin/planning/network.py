"""The network of a run in numbers: per product, per pair of a datapoint and a label, per label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mufin.nn.attention import SelfAttention
from mufin.nn.bags import Bag, Pooling
from mufin.nn.concat import ConCat
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.feed_forward import FeedForward
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.nn.no_self_attention import NoSelfAttention
from mufin.params import Params
from mufin.planning.encoders import encoder_costs
from mufin.planning.networks import META, Cost, EncoderCost, counts_of, measured
from mufin.planning.sizes import Sizes

FLOAT = 4  # bytes of a number


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One member of the ensemble. A bag has `text_rows` rows on average, and one per picture."""

    encoders: dict[str, EncoderCost]
    projections: dict[str, int]  # parameters from the width of each encoder to D
    dim: int  # D
    members: int
    texts: float  # per product that E_T reads
    text_rows: float  # of texts and of their words
    pictures_in_bags: bool
    longest: int  # rows of the largest bag, to which the bags of a batch are padded
    label_longest: int  # rows of the largest bag of a label
    self_attention: Cost  # per bag, padded
    pair: Cost  # per pair of bags: x^{2,l} by `adapted`
    score: Cost  # per pair, by `scores`
    side: Cost  # per label, by `label_side`
    side_bytes: float  # per label, of what `label_side` returns for the largest one
    parameters: int  # all but the encoders and what grows with labels and terms
    terms: int  # title words with a learnt vector
    labels: int

    @property
    def joint(self) -> int:
        """D of all members side by side, as the search has it."""
        return self.members * self.dim

    def rows(self, pictures: float) -> float:
        """Rows of a bag with so many pictures, without padding."""
        return self.text_rows + (pictures if self.pictures_in_bags else 0.0)

    def product(self, pictures: float, encoders: dict[str, EncoderCost] | None = None) -> Cost:
        """A product with so many pictures, encoded to its bag X^1 (`nn.mufin`, `bag`)."""
        cost, counts = self.self_attention, {"text": self.texts, "image": pictures}
        for name, encoder in (encoders or self.encoders).items():
            learnt = 2.0 * self.projections[name]  # operations of a learnt projection
            projected = encoder.trained.plus(Cost(learnt, 3 * learnt))
            cost = cost.plus(projected.times(counts[name]))
        return cost

    def input_bytes(self, pictures: float, encoders: dict[str, EncoderCost] | None = None) -> float:
        """Bytes of what a product's encoders read (`corpus.descriptors`)."""
        counts = {"text": self.texts, "image": pictures}
        return sum(counts[name] * e.stored for name, e in (encoders or self.encoders).items())

    @property
    def all_parameters(self) -> float:
        return (
            self.parameters
            + self.terms * self.dim
            + sum(e.parameters for e in self.encoders.values())
        )

    @property
    def trainable(self) -> float:
        """What AdamW trains: the parts of the encoders that train, and the rest of the network."""
        return self.parameters + sum(e.trainable for e in self.encoders.values())


def network_of(params: Params, sizes: Sizes) -> Network:
    """The network that the stages pretrain and finetune train (`nn.assembly`)."""
    e, dim = params.encoder, params.encoder.dim
    encoders = encoder_costs(params, sizes.vocabulary, sizes.tokens)
    lexical = "lexical" in e.modalities
    fused = e.fuses_early or e.text.kind == "visualbert"
    in_bags = "image" in e.modalities and (not fused or e.fusion == "both")
    read = "text" in e.modalities or fused
    most_rows = read * sizes.most_texts + int(lexical)
    longest = max(most_rows + (sizes.longest if in_bags else 0), 1)
    of_label = longest if sizes.label_pictures else max(most_rows, 1)
    with META:
        a_s, a_c = _self_attention(params), _cross_attention(params)
    pairs = _pair_costs(a_c, longest, of_label, dim)
    return Network(
        encoders=encoders,
        projections=_projections(params, encoders),
        dim=dim,
        members=params.members,
        texts=sizes.texts,
        text_rows=read * sizes.texts + int(lexical),
        pictures_in_bags=in_bags,
        longest=longest,
        label_longest=of_label,
        self_attention=measured(lambda n: a_s(_rows(n, longest, dim), _mask(n, longest))),
        pair=pairs[0],
        score=pairs[1],
        side=pairs[2],
        side_bytes=pairs[3],
        parameters=counts_of(a_s)[0]
        + counts_of(a_c)[0]
        + sum(_projections(params, encoders).values()),
        terms=(sizes.terms or e.lexical.max_terms) if lexical else 0,
        labels=sizes.labels,
    )


def _self_attention(params: Params) -> nn.Module:
    a, dim = params.attention, params.encoder.dim
    if a.a_s == "none":
        return NoSelfAttention()
    if a.a_s == "feedforward":
        return FeedForward(dim, a.dropout)
    return SelfAttention(dim, a.heads, a.dropout)


def _cross_attention(params: Params) -> Any:
    a, dim, kind = params.attention, params.encoder.dim, params.transfer.a_c
    if kind == "none":
        return NoCrossAttention()
    if kind == "concat":
        return ConCat(dim, a.dropout)
    return CrossAttention(dim, a.heads, a.dropout)


def _projections(params: Params, encoders: dict[str, EncoderCost]) -> dict[str, int]:
    """Parameters from the width of each encoder to D (`nn.mufin`, `Projection`)."""
    dim, kind = params.encoder.dim, params.encoder.projection
    out = dict.fromkeys(encoders, 0)
    for name, encoder in encoders.items():
        width = encoder.width
        if kind == "linear":
            out[name] = (width + 1) * dim
        elif kind == "two_layers":
            out[name] = (width + 1) * (width // 2) + (width // 2 + 1) * dim
    return out


def _pair_costs(a_c: Any, asked: int, of_label: int, dim: int) -> tuple[Cost, Cost, Cost, float]:
    """Of A_C or its replacement: `adapted` and `scores` per pair, `label_side` per label, and the
    bytes per label of the latter.

    Bags of datapoints have `asked` rows and those of labels `of_label`.
    """
    pooling = Pooling()

    def bag(n: int, rows: int) -> Bag:
        return Bag(_rows(n, rows, dim), torch.zeros(n, rows, dtype=torch.int8))

    def side(n: int) -> Any:
        return a_c.label_side(bag(n, of_label), torch.zeros(n, dim, requires_grad=True), pooling)

    def sides(n: int) -> torch.Tensor:
        return sum(t.float().sum() for t in side(n).tensors() if t.is_floating_point())

    def scores(n: int) -> torch.Tensor:
        return a_c.scores(bag(1, asked), side(n), pooling)

    per_label = measured(sides)
    both = measured(scores)
    per_pair = Cost(*(max(b - s, 0.0) for b, s in zip(_numbers(both), _numbers(per_label))))
    with META:
        size = sum(t.numel() * t.element_size() for t in side(1).tensors())

    def adapted(n: int) -> torch.Tensor:
        return a_c.adapted(bag(n, asked), bag(n, of_label), pooling)

    return measured(adapted), per_pair, per_label, size


def _numbers(cost: Cost) -> tuple[float, float, float]:
    return cost.forward, cost.step, cost.saved


def _rows(n: int, m: int, dim: int) -> torch.Tensor:
    return torch.zeros(n, m, dim, requires_grad=True)


def _mask(n: int, m: int) -> torch.Tensor:
    return torch.ones(n, m, dtype=torch.bool)

"""The network of MUFIN: bags, vectors, label-adapted vectors and scores (MUFIN Sec. 3, Fig. 2).

A datapoint is the product asked about, a label a candidate answer; both are bags of descriptors.
Symbols of the paper: E_V and E_T are the image and text encoders, A_S is the self-attention within
a bag, A_C the cross-attention from a datapoint to a label. X^0 is a bag of descriptors, X^1 the bag
after A_S, x^1 its vector; Z^1 and z^1 are the same for a label. x^{2,l} is a datapoint adapted to
label l by A_C, and w_l the classifier of label l. The score of l is <w_l, x^{2,l}>.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool1d

from mufin.corpus.descriptors import DescriptorBatch
from mufin.corpus.modality import IMAGE, TEXT
from mufin.nn.attention import SelfAttention
from mufin.nn.bags import Bag, Pooling
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.concat import ConCat
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.feed_forward import FeedForward
from mufin.nn.label_side import LabelSide
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.nn.no_self_attention import NoSelfAttention
from mufin.nn.two_layers import TwoLayers


def max_pool(x: Tensor, dim: int) -> Tensor:
    """Adaptive max pooling over the feature axis, (n, width) -> (n, dim)  (MUFIN Sec. 3).

    Where `dim` divides `width`, as 192 divides 768, it is the maximum of each group of width / dim
    features. That case does not use torch's pooling, whose backward on CUDA is not deterministic.
    Of equal features the first gets the gradient, as in torch's pooling.
    """
    width = x.shape[1]
    if width % dim:
        return adaptive_max_pool1d(x.unsqueeze(1), dim).squeeze(1)
    return x.unflatten(1, (dim, width // dim)).max(-1).values


class Projection(nn.Module):
    """Descriptors (n, width) -> (n, D), by adaptive max pooling (MUFIN Sec. 3) or learnt maps.

    `kind` is maxpool, linear (one map) or two_layers (`TwoLayers`).
    Descriptors are first standardised with `mean` and `std` (width,), if these are given.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        width: int,
        dim: int,
        kind: str,
        dropout: float,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ):
        super().__init__()
        self.dim, self.dropout = dim, nn.Dropout(dropout)
        scale = torch.ones(width) if std is None else 1.0 / std.float().clamp_min(1e-6)
        self.register_buffer("mean", torch.zeros(width) if mean is None else mean.float())
        self.register_buffer("scale", scale)
        self.linear = _learnt_map(kind, width, dim)

    def forward(self, descriptors: Tensor) -> Tensor:
        """(n, width) -> (n, D)."""
        x = self.dropout((descriptors.float() - self.mean) * self.scale)
        return self.linear(x) if self.linear is not None else max_pool(x, self.dim)


def _learnt_map(kind: str, width: int, dim: int) -> nn.Module | None:
    if kind == "two_layers":
        return TwoLayers(width, dim)
    return nn.Linear(width, dim) if kind == "linear" else None


class LexicalBag(nn.Module):
    """The mean of learnt vectors of the words in a title, (n, D); not in the paper.

    It learns rare but telling words, such as the names of series and models.
    """

    def __init__(self, num_terms: int, dim: int):
        super().__init__()
        self.width = dim
        self.embedding = nn.EmbeddingBag(max(num_terms, 1), dim, mode="mean", sparse=True)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """(nnz,) int64 term ids and (n,) int64 starts of each title's ids -> (n, D)."""
        return self.embedding(ids, offsets)


class Mufin(nn.Module):
    """E_V, E_T, A_S, A_C and, from Module III on, the classifiers (MUFIN Sec. 3).

    `encoders` and `projections` have one entry per modality in use. `self_attention` is A_S or its
    replacement in a variant of Table 4, `cross_attention` is A_C or its replacement, and `pooling`
    sums a bag to one vector. `modality_dropout` is the probability that a bag loses a modality in
    a training step.
    """

    def __init__(
        self,
        encoders: dict[str, nn.Module],
        projections: dict[str, nn.Module],
        dim: int,
        self_attention: SelfAttention | FeedForward | NoSelfAttention,
        cross_attention: CrossAttention | ConCat | NoCrossAttention,
        pooling: Pooling,
        modality_dropout: float = 0.0,
    ):
        super().__init__()
        self.dim, self.modality_dropout = dim, modality_dropout
        self.encoders = nn.ModuleDict(encoders)
        self.projections = nn.ModuleDict(projections)
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.pooling = pooling
        self.classifiers: LabelClassifiers | None = None

    def pre_embeddings(self, batch: DescriptorBatch) -> Bag:
        """X^0 of a batch, (n, m, D): each descriptor encoded and projected (MUFIN Fig. 2a)."""
        if self.fuses:
            return self._fused_bags(batch)
        parts = [*self._titles(batch), *self._pictures(batch), *self._terms(batch)]
        # All bags one after the other, (n m, D); rows without a descriptor stay 0.
        rows = torch.zeros(batch.num_bags * batch.width, self.dim, device=batch.modality.device)
        if parts:
            slots = torch.cat([slots for _, slots in parts])
            rows = rows.index_copy(0, slots, torch.cat([values.float() for values, _ in parts]))
        return Bag(rows.view(batch.num_bags, batch.width, self.dim), batch.modality)

    # Each of these three returns (k, D) encoded descriptors and their (k,) places among the n m
    # rows of the batch, as a list of one pair, or of none if the batch has no such descriptor.

    def _titles(self, batch: DescriptorBatch) -> list[tuple[Tensor, Tensor]]:
        if batch.text is None or batch.text_bag is None or not len(batch.text_bag):
            return []
        encoded = self.encoders["text"](batch.text, batch.text_lengths)
        return [(self.projections["text"](encoded), batch.text_bag * batch.width)]

    def _pictures(self, batch: DescriptorBatch) -> list[tuple[Tensor, Tensor]]:
        if batch.images is None or batch.image_bag is None or not len(batch.image_bag):
            return []
        assert batch.image_row is not None
        encoded = self.encoders["image"](batch.images)
        slots = batch.image_bag * batch.width + batch.image_row
        return [(self.projections["image"](encoded), slots)]

    def _terms(self, batch: DescriptorBatch) -> list[tuple[Tensor, Tensor]]:
        if batch.lexical_ids is None or batch.lexical_bag is None or not len(batch.lexical_bag):
            return []
        encoded = self.encoders["lexical"](batch.lexical_ids, batch.lexical_offsets)
        slots = batch.lexical_bag * batch.width + batch.lexical_row
        return [(self.projections["lexical"](encoded), slots)]

    @property
    def fuses(self) -> bool:
        """Whether E_T reads the pictures too and a bag has one row (early fusion, App. C.1)."""
        return "text" in self.encoders and getattr(self.encoders["text"], "reads_pictures", False)

    def _fused_bags(self, batch: DescriptorBatch) -> Bag:
        """X^0 of an E_T that fuses title and pictures: (n, 1, D) rows, marked as text.

        The bag of a product without title and pictures is empty.
        """
        # Modality dropout must come before the fusion: later the modalities cannot be told apart.
        modality = self._drop_modalities(batch.modality)  # (n, m)
        there = (modality >= 0).any(-1).nonzero().squeeze(1)  # products with a descriptor
        rows = torch.zeros(batch.num_bags, self.dim, device=modality.device)
        kinds = torch.full((batch.num_bags, 1), -1, dtype=modality.dtype, device=modality.device)
        if len(there):
            encoded = self.projections["text"](self.fused(batch, modality, there))
            rows = rows.index_copy(0, there, encoded.float())
            kinds = kinds.index_fill(0, there, TEXT)
        return Bag(rows.unsqueeze(1), kinds)

    def fused(self, batch: DescriptorBatch, modality: Tensor, products: Tensor) -> Tensor:
        """The vectors of E_T for title and pictures together, (len(products), width).

        `products` are rows of the batch. `modality` (n, m) says which descriptors E_T may see.
        """
        assert batch.text is not None and batch.text_bag is not None
        assert batch.text_lengths is not None
        n, device = batch.num_bags, modality.device
        # The batch holds descriptors without padding; E_T needs one row of tokens per product, and
        # all pictures of a product in one row.
        tokens = batch.text.new_zeros(n, batch.text.shape[1])
        lengths = torch.zeros(n, dtype=torch.int64, device=device)
        tokens[batch.text_bag], lengths[batch.text_bag] = batch.text, batch.text_lengths
        lengths = lengths * (modality == TEXT).any(-1)
        features = self.projections["image"](batch.images)  # of a frozen E_V: stored descriptors
        pictures = features.new_zeros(n, batch.width, features.shape[1])
        pictures[batch.image_bag, batch.image_row] = features
        pictures, seen = pictures[:, 1:], modality[:, 1:] == IMAGE  # row 0 of a bag is the title
        encoder = self.encoders["text"]
        return encoder(tokens[products], lengths[products], pictures[products], seen[products])

    def bag(self, batch: DescriptorBatch) -> Bag:
        """X^1 = A_S(X^0), the bag embeddings of a batch, (n, m, D)."""
        pre = self.pre_embeddings(batch)
        kept = Bag(pre.rows, self._drop_modalities(pre.modality))
        return Bag(self.self_attention(kept.rows, kept.mask), kept.modality)

    def vector(self, bag: Bag) -> Tensor:
        """x^1 (or z^1) = N(sum of the rows of a bag), (n, D); zero for an empty bag."""
        return self.pooling(bag)

    def adapted(self, x: Bag, z: Bag) -> Tensor:
        """x^{2,l} of n aligned pairs of bags, (n, D)  (MUFIN Fig. 2c); zero for an empty x."""
        return self.cross_attention.adapted(x, z, self.pooling)

    def label_side(self, z: Bag, w: Tensor) -> LabelSide:
        """What `scores` needs of U labels with bags `z` (U, m, D) and classifiers `w` (U, D)."""
        return self.cross_attention.label_side(z, w, self.pooling)

    def scores(self, x: Bag, labels: LabelSide) -> Tensor:
        """<w_l, x^{2,l}> of B datapoints: (B, U), or (B, K) where each has its own labels."""
        return self.cross_attention.scores(x, labels, self.pooling)

    def classifier(self, label_ids: Tensor, z: Tensor) -> Tensor:
        """w_l of (U,) labels with embeddings `z` (U, D), (U, D); z itself before Module III."""
        return z if self.classifiers is None else self.classifiers(label_ids, z)

    def _drop_modalities(self, modality: Tensor) -> Tensor:
        """`modality` (n, m), in training with one modality removed from some bags, at random.

        Only bags with two modalities or more lose one.
        """
        if not (self.training and self.modality_dropout):
            return modality
        has = torch.stack([(modality == m).any(-1) for m in range(3)], -1)  # (n, 3)
        pick = torch.rand(has.shape, device=has.device).masked_fill(~has, -1).argmax(-1)  # (n,)
        lose = (has.sum(-1) > 1) & (torch.rand(len(has), device=has.device) < self.modality_dropout)
        removed = lose.unsqueeze(-1) & (modality == pick.unsqueeze(-1))
        return modality.masked_fill(removed, -1)

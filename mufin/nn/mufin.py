"""MUFIN's network: bags, vectors, label-adapted vectors and scores (MUFIN Sec. 3, Fig. 2)."""

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
from mufin.nn.feed_forward import FeedForward, NoSelfAttention
from mufin.nn.label_side import LabelSide
from mufin.nn.no_cross_attention import NoCrossAttention


def max_pool(x: Tensor, dim: int) -> Tensor:
    """Adaptive max pooling over the feature axis, (n, width) -> (n, dim)  (MUFIN Sec. 3).

    Where `dim` divides `width`, as 192 divides 768, that is the maximum of each group of width / dim features. It is
    written so because torch has no deterministic backward of adaptive pooling on CUDA. Of equal features the first gets
    the gradient, as in adaptive pooling.
    """
    width = x.shape[1]
    if width % dim:
        return adaptive_max_pool1d(x.unsqueeze(1), dim).squeeze(1)
    return x.unflatten(1, (dim, width // dim)).max(-1).values


class Projection(nn.Module):
    """Descriptors (n, width) -> (n, D): adaptive max pooling over the feature axis (Sec. 3), or a linear map.

    `mean` and `std` (width,) centre and scale frozen descriptors by train statistics; without them they stay as they are.
    """

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
        self.register_buffer("mean", torch.zeros(width) if mean is None else mean.float())
        self.register_buffer(
            "scale", torch.ones(width) if std is None else 1.0 / std.float().clamp_min(1e-6)
        )
        self.linear = nn.Linear(width, dim) if kind == "linear" else None

    def forward(self, descriptors: Tensor) -> Tensor:
        x = self.dropout((descriptors.float() - self.mean) * self.scale)
        return self.linear(x) if self.linear is not None else max_pool(x, self.dim)


class LexicalBag(nn.Module):
    """The mean of learnt vectors of a title's words, (n, D), for rare words that tell much (series names, models)."""

    def __init__(self, num_terms: int, dim: int):
        super().__init__()
        self.width = dim
        self.embedding = nn.EmbeddingBag(max(num_terms, 1), dim, mode="mean", sparse=True)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        return self.embedding(ids, offsets)


class Mufin(nn.Module):
    """E_V, E_T, A_S, A_C and, from Module III on, the classifiers.

    `encoders` and `projections` have one entry per modality in use. `self_attention` is A_S or what replaces it in a
    variant of Table 4, `cross_attention` likewise A_C; `pooling` sums a bag to one vector.
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
        self.encoders, self.projections = nn.ModuleDict(encoders), nn.ModuleDict(projections)
        self.self_attention, self.cross_attention, self.pooling = (
            self_attention,
            cross_attention,
            pooling,
        )
        self.classifiers: LabelClassifiers | None = None

    def pre_embeddings(self, batch: DescriptorBatch) -> Bag:
        """The bags X^0 of a batch: each descriptor encoded and projected, before A_S (Fig. 2a)."""
        if self.fuses:
            return self._fused_bags(batch)
        parts, slots = [], []
        if batch.text is not None and len(batch.text_bag):
            encoded = self.encoders["text"](batch.text, batch.text_lengths)
            parts.append(self.projections["text"](encoded))
            slots.append(batch.text_bag * batch.width)
        if batch.images is not None and len(batch.image_bag):
            parts.append(self.projections["image"](self.encoders["image"](batch.images)))
            slots.append(batch.image_bag * batch.width + batch.image_row)
        if batch.lexical_ids is not None and len(batch.lexical_bag):
            encoded = self.encoders["lexical"](batch.lexical_ids, batch.lexical_offsets)
            parts.append(self.projections["lexical"](encoded))
            slots.append(batch.lexical_bag * batch.width + batch.lexical_row)
        rows = torch.zeros(batch.num_bags * batch.width, self.dim, device=batch.modality.device)
        if parts:
            rows = rows.index_copy(0, torch.cat(slots), torch.cat([p.float() for p in parts]))
        return Bag(rows.view(batch.num_bags, batch.width, self.dim), batch.modality)

    @property
    def fuses(self) -> bool:
        """Whether E_T reads the pictures too, so that a bag has one row (early fusion, App. C.1)."""
        return "text" in self.encoders and getattr(self.encoders["text"], "reads_pictures", False)

    def _fused_bags(self, batch: DescriptorBatch) -> Bag:
        """X^0 where E_T fuses title and pictures: (n, 1, D), marked as text; empty where a product has neither."""
        # a modality that is dropped must be dropped before it is fused
        modality = self._drop_modalities(Bag(batch.modality, batch.modality)).modality
        there = (modality >= 0).any(-1).nonzero().squeeze(1)
        rows = torch.zeros(batch.num_bags, self.dim, device=modality.device)
        kinds = torch.full((batch.num_bags, 1), -1, dtype=modality.dtype, device=modality.device)
        if len(there):
            encoded = self.projections["text"](self.fused(batch, modality, there))
            rows, kinds = (
                rows.index_copy(0, there, encoded.float()),
                kinds.index_fill(0, there, TEXT),
            )
        return Bag(rows.unsqueeze(1), kinds)

    def fused(self, batch: DescriptorBatch, modality: Tensor, products: Tensor) -> Tensor:
        """E_T's vectors (len(products), width) of title and pictures together, of those that `modality` (n, m) keeps."""
        n, device = batch.num_bags, modality.device
        tokens = batch.text.new_zeros(n, batch.text.shape[1])
        lengths = torch.zeros(n, dtype=torch.int64, device=device)
        tokens[batch.text_bag], lengths[batch.text_bag] = batch.text, batch.text_lengths
        lengths = lengths * (modality == TEXT).any(-1)
        features = self.projections["image"](batch.images)  # frozen: the store has descriptors
        pictures = features.new_zeros(n, batch.width, features.shape[1])
        pictures[batch.image_bag, batch.image_row] = features
        pictures, seen = pictures[:, 1:], modality[:, 1:] == IMAGE  # row 0 of a bag is the title's
        return self.encoders["text"](
            tokens[products], lengths[products], pictures[products], seen[products]
        )

    def bag(self, batch: DescriptorBatch) -> Bag:
        """X^1 = A_S(X^0): the bag embeddings of a batch, (n, m, D)."""
        pre = self._drop_modalities(self.pre_embeddings(batch))
        return Bag(self.self_attention(pre.rows, pre.mask), pre.modality)

    def vector(self, bag: Bag) -> Tensor:
        """x^1 (or z^1) = N(sum of the bag's rows), (n, D); zero for an empty bag."""
        return self.pooling(bag)

    def adapted(self, x: Bag, z: Bag) -> Tensor:
        """x^{2,l} of n aligned pairs of bags, (n, D)  (Fig. 2c); zero for an empty bag of a datapoint, always."""
        return self.cross_attention.adapted(x, z, self.pooling)

    def label_side(self, z: Bag, w: Tensor) -> LabelSide:
        """What the scores need of U labels: of their bags (U, m, D) and classifiers (U, D)."""
        return self.cross_attention.label_side(z, w, self.pooling)

    def scores(self, x: Bag, labels: LabelSide) -> Tensor:
        """<w_l, x^{2,l}> of B datapoints: (B, U) for all labels of the side, (B, K) where each has labels of its own."""
        return self.cross_attention.scores(x, labels, self.pooling)

    def classifier(self, label_ids: Tensor, z: Tensor) -> Tensor:
        """w_l for (U,) labels with embeddings z (U, D); without classifiers (Module I, alpha = 1) it is z."""
        return z if self.classifiers is None else self.classifiers(label_ids, z)

    def _drop_modalities(self, bag: Bag) -> Bag:
        """In training, some bags that have two modalities or more lose one of them, at random."""
        if not (self.training and self.modality_dropout):
            return bag
        has = torch.stack([(bag.modality == m).any(-1) for m in range(3)], -1)  # (n, 3)
        pick = torch.rand(has.shape, device=has.device).masked_fill(~has, -1).argmax(-1)  # (n,)
        lose = (has.sum(-1) > 1) & (torch.rand(len(has), device=has.device) < self.modality_dropout)
        gone = lose.unsqueeze(-1) & (bag.modality == pick.unsqueeze(-1))
        return Bag(bag.rows, bag.modality.masked_fill(gone, -1))

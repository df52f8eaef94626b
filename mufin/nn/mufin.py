"""The network of MUFIN: bags, vectors, label-adapted vectors and scores (MUFIN Sec. 3, Fig. 2).

A datapoint is the product asked about, a label a candidate answer; both are bags of descriptors.
Symbols of the paper: E_V and E_T are the image and text encoders, A_S is the self-attention within
a bag, A_C the cross-attention from a datapoint to a label. X^0 is a bag of descriptors, X^1 the bag
after A_S, x^1 its vector; Z^1 and z^1 are the same for a label. x^{2,l} is a datapoint adapted to
label l by A_C, and w_l the classifier of label l. The score of l is <w_l, x^{2,l}>.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool1d

from mufin.corpus.descriptors import DescriptorBatch
from mufin.corpus.modality import IMAGE, TEXT
from mufin.nn.attention import SelfAttention
from mufin.nn.bags import Bag, Pooling
from mufin.nn.classifiers import DirectedClassifiers, LabelClassifiers
from mufin.nn.concat import ConCat
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.early_fusion import EarlyFusion
from mufin.nn.feed_forward import FeedForward
from mufin.nn.label_side import LabelSide
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.nn.no_self_attention import NoSelfAttention
from mufin.nn.prototypes import PrototypeClassifiers
from mufin.nn.recomputed import InPieces
from mufin.nn.titles import (
    PictureReader,
    encoded_titles,
    fused_titles,
    titles_of,
    without_titles,
)
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


class Part(NamedTuple):
    """k descriptors of a batch, encoded and projected."""

    rows: Tensor  # (k, D)
    bag: Tensor  # (k,) int64: the bag of each
    place: Tensor | int  # (k,) int64: its place there, or the same place for all


class Mufin(nn.Module):
    """E_V, E_T, A_S, A_C and, from Module III on, the classifiers (MUFIN Sec. 3).

    `encoders` and `projections` have one entry per modality in use. `self_attention` is A_S or its
    replacement in a variant of Table 4, `cross_attention` is A_C or its replacement, and `pooling`
    sums a bag to one vector. `modality_dropout` is the probability that a bag loses a modality in
    a training step. With `fusion`, E_T reads the pictures too, and there is an image encoder only
    if pictures stay in the bags.
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
        fusion: EarlyFusion | None = None,
    ):
        super().__init__()
        self.dim, self.modality_dropout = dim, modality_dropout
        self.encoders = nn.ModuleDict(encoders)
        self.projections = nn.ModuleDict(projections)
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.pooling = pooling
        self.fusion = fusion
        self.classifiers: LabelClassifiers | PrototypeClassifiers | DirectedClassifiers | None = (
            None
        )
        self.recompute = False  # whether a step keeps little of the encoders, see `InPieces`

    def pre_embeddings(self, batch: DescriptorBatch) -> Bag:
        """X^0 of a batch, (n, m, D): each descriptor encoded and projected (MUFIN Fig. 2a)."""
        if self.fuses:
            return self._fused_bags(batch)
        parts = [*self._texts(batch), *self._pictures(batch), *self._terms(batch)]
        return Bag(self._placed(parts, batch.modality), batch.modality)

    def _placed(self, parts: list[Part], modality: Tensor) -> Tensor:
        """The rows of all bags, (n, m, D); places without a descriptor are 0."""
        n, width = modality.shape
        rows = torch.zeros(n * width, self.dim, device=modality.device)  # one bag after the other
        if parts:
            slots = torch.cat([part.bag * width + part.place for part in parts])
            rows = rows.index_copy(0, slots, torch.cat([part.rows.float() for part in parts]))
        return rows.view(n, width, self.dim)

    # Each of these three is a list of one part, or of none if the batch has no such descriptor.

    def _texts(self, batch: DescriptorBatch) -> list[Part]:
        if batch.text is None or batch.text_bag is None or not len(batch.text_bag):
            return []
        encoder, groups = self._encoder("text"), batch.text_groups
        encoded = encoded_titles(encoder, batch.text, batch.text_lengths, groups)
        assert batch.text_row is not None
        return [Part(self.projections["text"](encoded), batch.text_bag, batch.text_row)]

    def _pictures(self, batch: DescriptorBatch) -> list[Part]:
        if batch.images is None or batch.image_bag is None or not len(batch.image_bag):
            return []
        assert batch.image_row is not None
        encoded = self._encoder("image")(batch.images)
        return [Part(self.projections["image"](encoded), batch.image_bag, batch.image_row)]

    def _encoder(self, name: str) -> nn.Module | InPieces:
        encoder = self.encoders[name]
        return InPieces(encoder) if self.recompute else encoder

    def _terms(self, batch: DescriptorBatch) -> list[Part]:
        if batch.lexical_ids is None or batch.lexical_bag is None or not len(batch.lexical_bag):
            return []
        encoded = self.encoders["lexical"](batch.lexical_ids, batch.lexical_offsets)
        return [Part(self.projections["lexical"](encoded), batch.lexical_bag, batch.lexical_row)]

    @property
    def fuses(self) -> bool:
        """Whether E_T reads the pictures too (early fusion; App. C.1 with VisualBERT)."""
        text = self.encoders["text"] if "text" in self.encoders else None
        return self.fusion is not None or getattr(text, "reads_pictures", False)

    def _fused_bags(self, batch: DescriptorBatch) -> Bag:
        """X^0 of an E_T that fuses title and pictures: their row is marked as text.

        It is the first row, also without a title. Then follow further texts, the terms, if they
        are in use, and pictures that stay in the bag. Without any text, picture and term the bag is
        empty. "Title" is the first text here.
        """
        seen = batch.modality  # (n, m)
        if batch.fused is None or batch.fused.shape[1] > 1:
            # Modality dropout must come before the fusion: later they cannot be told apart.
            seen = self._drop_modalities(seen)
        there = ((seen == TEXT) | (seen == IMAGE)).any(-1).nonzero().squeeze(1)
        keeps = self.fusion is not None and self.fusion.pictures_in_bags
        kinds = seen.clone() if keeps else seen[:, : self._pictures_from(batch)].clone()
        kinds[:, 0] = -1
        parts = [*self._texts(without_titles(batch)), *self._terms(batch)]
        if keeps:
            parts += self._pictures(batch)
        if len(there):
            kinds[there, 0] = TEXT
            parts.append(Part(self.projections["text"](self.fused(batch, seen, there)), there, 0))
        return Bag(self._placed(parts, kinds), kinds)

    def _pictures_from(self, batch: DescriptorBatch) -> int:
        """The place of the first picture in the bags of a batch."""
        return batch.text_places + ("lexical" in self.encoders)

    def fused(self, batch: DescriptorBatch, modality: Tensor, products: Tensor) -> Tensor:
        """The vectors of E_T for title and pictures together, (len(products), width).

        `products` are rows of the batch. `modality` (n, m) says which descriptors E_T may see.
        """
        titled, pictured = (modality == TEXT).any(-1), modality == IMAGE
        if batch.fused is not None:
            return self._held_fused(batch.fused, titled, pictured.any(-1))[products]
        batch = titles_of(batch)
        assert batch.text is not None and batch.text_bag is not None
        assert batch.text_lengths is not None and batch.images is not None
        # The batch holds descriptors without padding; E_T needs one row of tokens per product, and
        # all pictures of a product in one row.
        n, device = batch.num_bags, modality.device
        tokens = batch.text.new_zeros(n, *batch.text.shape[1:])
        lengths = torch.zeros(n, dtype=torch.int64, device=device)
        tokens[batch.text_bag], lengths[batch.text_bag] = batch.text, batch.text_lengths
        lengths = lengths * titled
        project = self.projections["image"] if self.fusion is None else self.fusion.projection
        features = project(batch.images)  # of a frozen E_V: stored descriptors
        pictures = features.new_zeros(n, batch.width, features.shape[1])
        pictures[batch.image_bag, batch.image_row] = features
        start = self._pictures_from(batch)
        pictures, seen = pictures[products, start:], pictured[products, start:]
        return self._read(tokens[products], lengths[products], pictures, seen)

    def _read(self, tokens: Tensor, lengths: Tensor, pictures: Tensor, seen: Tensor) -> Tensor:
        """E_T over titles and pictures of n products, in groups of similar length, (n, width)."""
        encoder = self.encoders["text"]
        read = encoder if self.fusion is None else partial(self.fusion, encoder)
        sizes = cast(PictureReader, self.fusion or encoder).sizes(lengths, seen)
        return fused_titles(read, tokens, lengths, pictures, seen, sizes)

    @staticmethod
    def _held_fused(outputs: Tensor, titled: Tensor, pictured: Tensor) -> Tensor:
        """Of the outputs (n, V, width) those of the modalities that are seen (n,), (n, width)."""
        if outputs.shape[1] == 1:  # of all modalities only
            return outputs[:, 0].float()
        which = torch.where(titled, torch.where(pictured, 0, 1), 2)  # as in `encoded.FUSED`
        return outputs[torch.arange(len(outputs), device=which.device), which].float()

    def bag(self, batch: DescriptorBatch) -> Bag:
        """X^1 = A_S(X^0), the bag embeddings of a batch, (n, m, D)."""
        pre = self.pre_embeddings(batch)
        # With early fusion it came before; VisualBERT's one row is never dropped.
        kinds = self._drop_modalities(pre.modality) if self.fusion is None else pre.modality
        kept = Bag(pre.rows, kinds)
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

    def unseen_classifier(self, z: Tensor) -> Tensor:
        """w of labels that training has not seen, with embeddings `z` (U, D): (U, D)."""
        return z if self.classifiers is None else self.classifiers.unseen(z)

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

"""MUFIN's network: bags, vectors, label-adapted vectors and scores (MUFIN Sec. 3, Fig. 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool1d, normalize

from pipeline.nn.attention import ConCat, FeedForward, cross_attention, self_attention
from pipeline.nn.classifiers import LabelClassifiers

TEXT, IMAGE, LEXICAL = 0, 1, 2          # codes of the modalities in `Bag.modality`; -1 is padding
MODALITIES = {"text": TEXT, "image": IMAGE, "lexical": LEXICAL}


@dataclass(frozen=True, slots=True)
class Bag:
    """n bags of at most m descriptors: `rows` (n, m, D), `modality` (n, m) int8, -1 where there is none."""

    rows: Tensor
    modality: Tensor

    @property
    def mask(self) -> Tensor:
        """(n, m) bool, True where there is a descriptor."""
        return self.modality >= 0

    def __getitem__(self, index) -> Bag:
        return Bag(self.rows[index], self.modality[index])


def max_pool(x: Tensor, dim: int) -> Tensor:
    """Adaptive max pooling over the feature axis, (n, width) -> (n, dim)  (MUFIN Sec. 3).

    Where `dim` divides `width`, as 192 does 768, that is the maximum of each group of width / dim features. It is written
    so because torch has no deterministic backward of adaptive pooling on CUDA. Of equal features the first gets the
    gradient, as in adaptive pooling.
    """
    width = x.shape[1]
    if width % dim:
        return adaptive_max_pool1d(x.unsqueeze(1), dim).squeeze(1)
    return x.unflatten(1, (dim, width // dim)).max(-1).values


class Projection(nn.Module):
    """Descriptors (n, width) -> (n, D): adaptive max pooling over the feature axis (Sec. 3), or a linear map.

    `mean` and `scale` centre and scale frozen descriptors by train statistics; 0 and 1 leave them alone.
    """

    def __init__(self, width: int, dim: int, kind: str, dropout: float, mean: Tensor | None = None,
                 std: Tensor | None = None):
        super().__init__()
        self.dim, self.dropout = dim, nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(width) if mean is None else mean.float())
        self.register_buffer("scale", torch.ones(width) if std is None else 1.0 / std.float().clamp_min(1e-6))
        self.linear = nn.Linear(width, dim) if kind == "linear" else None

    def forward(self, descriptors: Tensor) -> Tensor:
        x = self.dropout((descriptors.float() - self.mean) * self.scale)
        return self.linear(x) if self.linear is not None else max_pool(x, self.dim)


class Mufin(nn.Module):
    """E_V, E_T, A_S, A_C and (from Module III on) the classifiers; see docs/architecture.md for the arrows.

    `encoders` and `projections` have one entry a modality in use; `gates` adds a learnt weight a modality to the sum of
    a bag's rows (off: the paper's plain sum), so that a noisy modality need not weigh as much as a telling one. `a_s` and
    `a_c` put Table 4's variants in the place of A_S and A_C, under the same names.
    """

    def __init__(self, encoders: dict[str, nn.Module], projections: dict[str, nn.Module], dim: int, heads: int = 1,
                 dropout: float = 0.1, gates: bool = False, modality_dropout: float = 0.0, a_s: str = "attention",
                 a_c: str = "attention"):
        super().__init__()
        self.dim, self.modality_dropout = dim, modality_dropout
        self.encoders, self.projections = nn.ModuleDict(encoders), nn.ModuleDict(projections)
        self.self_attention = self_attention(a_s, dim, heads, dropout)
        self.cross_attention = cross_attention(a_c, dim, heads, dropout)
        self.gates = nn.Parameter(torch.zeros(3)) if gates else None      # log weights of text, image, lexical
        self.classifiers: LabelClassifiers | None = None

    def pre_embeddings(self, batch) -> Bag:
        """The bags X^0 of a `DescriptorBatch`: each descriptor encoded and projected, before A_S (Fig. 2a)."""
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
            parts.append(self.projections["lexical"](self.encoders["lexical"](batch.lexical_ids, batch.lexical_offsets)))
            slots.append(batch.lexical_bag * batch.width + batch.lexical_row)
        rows = torch.zeros(batch.num_bags * batch.width, self.dim, device=batch.modality.device)
        if parts:
            rows = rows.index_copy(0, torch.cat(slots), torch.cat([p.float() for p in parts]))
        return Bag(rows.view(batch.num_bags, batch.width, self.dim), batch.modality)

    @property
    def fuses(self) -> bool:
        """Whether E_T reads the pictures too, so that a bag has one row (early fusion, App. C.1)."""
        return "text" in self.encoders and getattr(self.encoders["text"], "reads_pictures", False)

    def _fused_bags(self, batch) -> Bag:
        """X^0 where E_T fuses title and pictures: (n, 1, D), the row a text's; empty where a product has neither."""
        # a modality that is dropped must be dropped before it is fused
        modality = self._drop_modalities(Bag(batch.modality, batch.modality)).modality
        there = (modality >= 0).any(-1).nonzero().squeeze(1)
        rows = torch.zeros(batch.num_bags, self.dim, device=modality.device)
        kinds = torch.full((batch.num_bags, 1), -1, dtype=modality.dtype, device=modality.device)
        if len(there):
            encoded = self.projections["text"](self.fused(batch, modality, there))
            rows, kinds = rows.index_copy(0, there, encoded.float()), kinds.index_fill(0, there, TEXT)
        return Bag(rows.unsqueeze(1), kinds)

    def fused(self, batch, modality: Tensor, products: Tensor) -> Tensor:
        """E_T's vectors (len(products), width) of title and pictures together, of those that `modality` (n, m) keeps."""
        n, device = batch.num_bags, modality.device
        tokens, lengths = batch.text.new_zeros(n, batch.text.shape[1]), torch.zeros(n, dtype=torch.int64, device=device)
        tokens[batch.text_bag], lengths[batch.text_bag] = batch.text, batch.text_lengths
        lengths = lengths * (modality == TEXT).any(-1)
        features = self.projections["image"](batch.images)          # frozen: the store has descriptors
        pictures = features.new_zeros(n, batch.width, features.shape[1])
        pictures[batch.image_bag, batch.image_row] = features
        pictures, seen = pictures[:, 1:], modality[:, 1:] == IMAGE   # row 0 of a bag is the title's
        return self.encoders["text"](tokens[products], lengths[products], pictures[products], seen[products])

    def bag(self, batch) -> Bag:
        """X^1 = A_S(X^0): the bag embeddings of a batch, (n, m, D)."""
        pre = self._drop_modalities(self.pre_embeddings(batch))
        return Bag(self._self_attended(pre.rows, pre.mask), pre.modality)

    def _self_attended(self, rows: Tensor, mask: Tensor) -> Tensor:
        if self.self_attention is None:
            return rows.masked_fill(~mask.unsqueeze(-1), 0.0)
        if isinstance(self.self_attention, FeedForward):
            return self.self_attention(rows, mask)
        return self.self_attention(rows, rows, mask, mask)

    def row_weights(self, modality: Tensor) -> Tensor:
        """The weight of each row in a bag's sum, (n, m): 1 without gates, exp(gate) with, 0 for padding."""
        if self.gates is None:
            return (modality >= 0).float()
        return self.gates.exp()[modality.clamp_min(0).long()] * (modality >= 0)

    def vector(self, bag: Bag) -> Tensor:
        """x^1 (or z^1) = N(sum of the bag's rows), (n, D); zero for an empty bag."""
        return normalize((bag.rows * self.row_weights(bag.modality).unsqueeze(-1)).sum(-2), dim=-1)

    def adapted(self, x: Bag, z: Bag) -> Tensor:
        """x^{2,l} = N(sum of the rows of A_C(X^1, Z^1)) for n aligned pairs of bags, (n, D)  (Fig. 2c).

        With `a_c` none it is x^1, with concat N(F([x^1; z^1])) (App. F); zero for an empty bag of a datapoint, always.
        """
        if self.cross_attention is None:
            return self.vector(x)
        if isinstance(self.cross_attention, ConCat):
            joined = self.cross_attention(self.vector(x), self.vector(z))
            return normalize(joined, dim=-1) * x.mask.any(-1, keepdim=True)
        rows = self.cross_attention(x.rows, z.rows, x.mask, z.mask)
        return self.vector(Bag(rows, x.modality))

    def classifier(self, label_ids: Tensor, z: Tensor) -> Tensor:
        """w_l for (U,) labels with embeddings z (U, D); without classifiers (Module I, alpha = 1) it is z."""
        return z if self.classifiers is None else self.classifiers(label_ids, z)

    def _drop_modalities(self, bag: Bag) -> Bag:
        """In training, some bags that have two modalities or more lose one of them, at random."""
        if not (self.training and self.modality_dropout):
            return bag
        has = torch.stack([(bag.modality == m).any(-1) for m in range(3)], -1)                     # (n, 3)
        pick = torch.rand(has.shape, device=has.device).masked_fill(~has, -1).argmax(-1)            # (n,)
        lose = (has.sum(-1) > 1) & (torch.rand(len(has), device=has.device) < self.modality_dropout)
        gone = lose.unsqueeze(-1) & (bag.modality == pick.unsqueeze(-1))
        return Bag(bag.rows, bag.modality.masked_fill(gone, -1))


class LexicalBag(nn.Module):
    """The mean of learnt vectors of a title's words, (n, D): rare words that mean much (series names, models)."""

    def __init__(self, num_terms: int, dim: int):
        super().__init__()
        self.width = dim
        self.embedding = nn.EmbeddingBag(max(num_terms, 1), dim, mode="mean", sparse=True)
        nn.init.normal_(self.embedding.weight, std=dim ** -0.5)

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        return self.embedding(ids, offsets)

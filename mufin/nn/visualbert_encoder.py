"""VisualBERT as E_T, for early fusion (MUFIN App. C.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mufin.nn.encoder import Encoder, Kind
from mufin.nn.text_encoder import masked_mean, token_mask
from mufin.nn.tower_spec import TowerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class VisualBertEncoder(Encoder):
    """E_T that reads the pictures of a product with its title (early fusion, MUFIN App. C.1).

    It returns one vector per product, (n, width): the mean over the tokens of title and pictures.
    The paper does not say which vector it uses. With random weights the pooled [CLS] stays nearly
    the same for all products and learns nothing. Each picture is one visual token, its feature from
    a frozen E_V. With `trainable` 0 the model is never in training mode, but its inputs are still
    tokens, because its output for a title depends on the pictures.
    """

    spec: TowerSpec
    untitled: Tensor
    reads_pictures = True
    kind: Kind = "inputs"

    def __init__(self, model: PreTrainedModel, spec: TowerSpec):
        super().__init__()
        self.model, self.spec = model, spec
        self.width, self.picture_width = model.config.hidden_size, model.config.visual_embedding_dim
        model.requires_grad_(spec.trainable == "all")
        untitled = torch.tensor(spec.untitled, dtype=torch.int32)
        self.register_buffer("untitled", untitled, persistent=False)

    def train(self, mode: bool = True) -> VisualBertEncoder:
        return super().train(mode and self.spec.trainable == "all")

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        pictures: Tensor | None = None,
        seen: Tensor | None = None,
        longest: int | None = None,
    ) -> Tensor:
        """Titles and picture features -> (n, width).

        `tokens` (n, T) int and `lengths` (n,): a product without a title has length 0 and is read
        as an empty title. `pictures` (n, m, picture_width) float, and `seen` (n, m) bool: which of
        them exist. `longest` is the largest of `sizes`, where it is known: titles are then cut.
        """
        if longest is not None and seen is not None:
            tokens = tokens[:, : longest - seen.shape[1]]
        tokens, lengths = self._titled(tokens, lengths)
        mask = token_mask(tokens, lengths)
        visual: dict[str, Tensor] = {}
        if pictures is not None and seen is not None and pictures.shape[1]:
            visual = {"visual_embeds": pictures, "visual_attention_mask": seen.long()}
        out = self.model(input_ids=tokens.long(), attention_mask=mask, **visual)
        if visual:
            mask = torch.cat([mask, visual["visual_attention_mask"]], 1)
        return masked_mean(out.last_hidden_state, mask)

    def sizes(self, lengths: Tensor, seen: Tensor) -> Tensor:
        """(n,) int64: the tokens that are computed of each product, of inputs of `forward`.

        The places of pictures come after the padded title, so all m of them are computed.
        """
        return lengths.where(lengths > 0, len(self.untitled)) + seen.shape[1]

    def _titled(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Replaces missing titles by the tokens of an empty one."""
        width, missing = max(tokens.shape[1], len(self.untitled)), lengths == 0
        untitled = self.untitled.to(tokens.dtype)
        tokens, untitled = (
            nn.functional.pad(t, (0, width - t.shape[-1])) for t in (tokens, untitled)
        )
        tokens = torch.where(missing.unsqueeze(1), untitled, tokens)
        return tokens, lengths.masked_fill(missing, len(self.untitled))

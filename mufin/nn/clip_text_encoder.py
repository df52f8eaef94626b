"""The text part of CLIP as E_T (MUFIN App. C.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from mufin.nn.encoder import Encoder
from mufin.nn.text_encoder import token_mask
from mufin.nn.tower_spec import TowerSpec

if TYPE_CHECKING:
    from transformers import CLIPTextModelWithProjection, PreTrainedModel


class ClipTextEncoder(Encoder):
    """E_T: the text tower of CLIP with its projection, (n, projection_dim), not normalised.

    `forward` takes int tokens (n, T) or descriptors, by `kind`. The descriptor is the embedding of
    the last token by length, which is the end token: tokenizers append it and keep it when they cut
    a title. CLIP's own model finds the end token by its id, but the id differs in vocabularies
    learnt here and in the config of older checkpoints.
    """

    spec: TowerSpec

    def __init__(self, model: PreTrainedModel, spec: TowerSpec):
        super().__init__()
        self.spec, self.width = spec, model.config.projection_dim
        self.model = cast("CLIPTextModelWithProjection", model)
        self.kind = "descriptors" if spec.trainable == 0 else "inputs"
        model.requires_grad_(self.kind == "inputs")

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Inputs of `kind` and the (n,) number of tokens of each title -> (n, width)."""
        return inputs.float() if self.kind == "descriptors" else self._embeddings(inputs, lengths)

    @torch.no_grad()
    def frozen(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The descriptors (n, width) of tokens (n, T), in eval mode."""
        self.eval()
        return self._embeddings(tokens, lengths)

    def _embeddings(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        mask = token_mask(tokens, lengths)
        out = self.model.text_model(input_ids=tokens.long(), attention_mask=mask)
        hidden = out.last_hidden_state
        end = hidden[torch.arange(hidden.shape[0], device=hidden.device), lengths.clamp_min(1) - 1]
        return self.model.text_projection(end)

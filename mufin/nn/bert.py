"""BERT as E_T in predictions, without transformers, whose model classes take seconds to import."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from mufin.artifacts.files import read_json
from mufin.nn.encoder import Encoder, Kind, divided
from mufin.nn.encoder_files import loading
from mufin.nn.text_encoder import masked_mean, token_mask

# what `Bert` computes; a model with another value of these settings is left to transformers
PLAIN = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "is_decoder": False,
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
}


class Bert(nn.Module):
    """The hidden states of a BERT (Devlin et al., NAACL 2019), with post-norm and no dropout.

    Weights have the names, and results the bits, of `transformers.BertModel` in eval mode.
    """

    def __init__(self, config: dict):
        super().__init__()
        width, wide = config["hidden_size"], config["intermediate_size"]
        eps, self.heads = config["layer_norm_eps"], config["num_attention_heads"]
        sizes = {
            "word_embeddings": config["vocab_size"],
            "position_embeddings": config["max_position_embeddings"],
            "token_type_embeddings": config["type_vocab_size"],
        }
        self.embeddings = nn.ModuleDict({n: nn.Embedding(s, width) for n, s in sizes.items()})
        self.embeddings["LayerNorm"] = nn.LayerNorm(width, eps=eps)
        self.layers = [_Layer(width, wide, eps) for _ in range(config["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(self.layers)})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})  # of the weights, not used

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Word embeddings (n, T, H), mask (n, T) with 0 for padding -> (n, T, H), hidden states."""
        e, length = self.embeddings, words.shape[1]
        kinds = torch.zeros(words.shape[:2], dtype=torch.int64, device=words.device)
        places = torch.arange(length, device=words.device)
        x = words + e["token_type_embeddings"](kinds)
        x = e["LayerNorm"](x + e["position_embeddings"](places))
        there = None  # (n, 1, T, T), where there is padding
        if not bool(mask.all()):
            there = mask.bool()[:, None, None, :].expand(-1, 1, length, -1)
        for layer in self.layers:
            x = layer(x, self.heads, there)
        return x


class _Layer(nn.Module):
    """Self-attention over the tokens, then two dense layers on each."""

    def __init__(self, width: int, wide: int, eps: float):
        super().__init__()
        own = nn.ModuleDict({n: nn.Linear(width, width) for n in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": own, "output": _Output(width, width, eps)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, wide)})
        self.output = _Output(wide, width, eps)

    def forward(self, x: Tensor, heads: int, there: Tensor | None) -> Tensor:
        own = cast(nn.ModuleDict, self.attention["self"])
        q, k, v = (
            own[name](x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        seen = scaled_dot_product_attention(q, k, v, there).transpose(1, 2).flatten(2)
        x = self.attention["output"](seen, x)
        return self.output(gelu(self.intermediate["dense"](x)), x)


class _Output(nn.Module):
    """N(x + W y), N a layer norm."""

    def __init__(self, size: int, width: int, eps: float):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(size, width), nn.LayerNorm(width, eps=eps)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(y) + x)


class BertTextEncoder(Encoder):
    """A trained `TextEncoder` whose model is a BERT, for predictions: (n, width) of tokens."""

    kind: Kind = "inputs"

    def __init__(self, config: dict):
        super().__init__()
        self.model, self.width = Bert(config), config["hidden_size"]

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Int tokens (n, T) and the (n,) number of tokens of each title -> (n, width)."""
        return self.read(self.token_states(inputs), lengths)

    @property
    def token_width(self) -> int:
        return self.width

    def token_states(self, inputs: Tensor) -> Tensor:
        """The embeddings of int tokens (n, T), without positions, (n, T, width)."""
        return self.model.embeddings["word_embeddings"](inputs.long())

    def read(self, states: Tensor, lengths: Tensor) -> Tensor:
        """States (n, T, width), and how many each title has (n,) -> (n, width)."""
        mask = token_mask(states, lengths)
        return masked_mean(self.model(states, mask), mask)


def bert_for_predictions(folder: Path) -> BertTextEncoder | None:
    """In place of the text encoder in `folder`, without its weights; None if it is no plain BERT.

    Raises ArtifactError if its spec is broken.
    """
    with loading(folder):
        facts = read_json(folder / "encoder.json")
        config = facts.get("config")
        if "family" in facts or config is None:
            return None
        plain = all(config.get(name) == value for name, value in PLAIN.items())
        kind, _ = divided(facts["trainable"], config.get("num_hidden_layers", 0))
        return BertTextEncoder(config) if plain and kind == "inputs" else None

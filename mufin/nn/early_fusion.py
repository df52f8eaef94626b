"""Early fusion: the pictures of a product as tokens of E_T (ViXML, AAAI 2026; not in the paper)."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mufin.errors import MufinError
from mufin.nn.encoder import Encoder
from mufin.nn.pretrained import reason

PROBE = (torch.arange(4, 8)[None], torch.tensor([3]))  # no pads (0 or 1), which RoBERTa would skip


class TokenReader(Protocol):
    """An E_T that can go on from the states of its tokens."""

    @property
    def token_width(self) -> int: ...  # of the states

    def token_states(self, inputs: Tensor) -> Tensor: ...  # of its inputs, (n, T, token_width)

    def read(self, states: Tensor, lengths: Tensor) -> Tensor: ...  # of states to (n, width)


class EarlyFusion(nn.Module):
    """Makes tokens of pictures and appends them to those of the title, for E_T to read as one.

    Each picture is one vector of a frozen E_V. `projection` takes it linearly to the width of the
    token states; its bias is the learnt embedding of the modality, the same for all pictures. The
    states are the token embeddings or, where only the last layers of E_T train, the stored hidden
    states that enter the first of these. The result is the mean of the last hidden states over
    tokens and pictures. A missing title is one learnt token.

    The first `most` pictures directly follow the last token of the title, in their order. So the
    padding of a batch changes nothing. Token embeddings have no positions yet: E_T numbers the
    pictures on from the title, as if they were its next words. Stored hidden states of a model with
    absolute positions, such as BERT, have theirs already: there the pictures have none, and their
    order makes no difference.

    With `pictures_in_bags`, the pictures also stay in the bag as rows of their own.
    """

    def __init__(self, projection: nn.Module, width: int, most: int, pictures_in_bags: bool):
        super().__init__()
        self.projection, self.most, self.pictures_in_bags = projection, most, pictures_in_bags
        self.untitled = nn.Parameter(torch.randn(width) * 0.02)  # as BERT draws its embeddings

    def forward(
        self,
        encoder: TokenReader,
        inputs: Tensor,
        lengths: Tensor,
        pictures: Tensor,
        seen: Tensor,
        longest: int | None = None,
    ) -> Tensor:
        """Titles and picture tokens -> (n, width) of E_T.

        `inputs` (n, T) tokens or (n, T, H) stored hidden states, and `lengths` (n,): 0 for a
        product without a title. `pictures` (n, m, token width), and `seen` (n, m) bool: which of
        them exist. `longest` is the largest of `sizes`, where it is known: E_T then reads no more.
        """
        states, lengths = self._titled(encoder.token_states(inputs[:, :longest]), lengths)
        pictures, seen = pictures[:, : self.most], seen[:, : self.most]
        product, picture = seen.nonzero(as_tuple=True)
        place = (lengths.unsqueeze(1) + seen.cumsum(1) - 1)[product, picture]
        width = longest or states.shape[1] + seen.shape[1]
        states = pad(states, (0, 0, 0, width - states.shape[1]))
        tokens = pictures[product, picture].to(states.dtype)
        return encoder.read(states.index_put((product, place), tokens), lengths + seen.sum(1))

    def sizes(self, lengths: Tensor, seen: Tensor) -> Tensor:
        """(n,) int64: the tokens of each product, pictures included, of inputs of `forward`."""
        return lengths.clamp_min(1) + seen[:, : self.most].sum(1)

    def _titled(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Replaces missing titles by the learnt token."""
        missing = lengths == 0
        first = torch.arange(states.shape[1], device=states.device) == 0
        at = (missing.unsqueeze(1) & first).unsqueeze(-1)
        return torch.where(at, self.untitled.to(states.dtype), states), lengths + missing


@torch.no_grad()
def check_reads_pictures(encoder: Encoder, most: int) -> None:
    """Raises MufinError if an E_T cannot read `most` tokens and pictures from their states."""
    reader, (tokens, lengths) = cast(TokenReader, encoder), PROBE
    training, problem = encoder.training, ""
    encoder.eval()
    try:
        inputs = encoder.frozen(*PROBE) if encoder.kind == "activations" else tokens
        states, whole = reader.token_states(inputs), encoder(inputs, lengths)
        if not torch.allclose(reader.read(states, lengths), whole, rtol=1e-3, atol=1e-4):
            problem = "it reads the states of tokens unlike the tokens"
        reader.read(states[:, :1].expand(1, most, -1), torch.tensor([most]))
    except Exception as error:  # a model for other inputs can raise anything
        problem = reason(error)
    encoder.train(training)
    if problem:
        raise MufinError(
            f"encoder.fusion is not late, and this text model cannot read {most} tokens and "
            f"pictures as one sequence ({problem}); lower encoder.text.max_tokens, set "
            "encoder.fusion to late, or use another text model"
        )

"""A copy of a network's weights."""

from __future__ import annotations

from torch import Tensor, nn


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers by name, contiguous, on the CPU."""
    return {n: t.detach().cpu().contiguous().clone() for n, t in network.state_dict().items()}

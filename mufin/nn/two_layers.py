"""The projection of the released code: two linear layers with spectral norm."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class TwoLayers(nn.Module):
    """Descriptors (n, width) -> (n, D) by two linear maps with spectral norm.

    They replace the max pooling of the paper in the released code (768 -> 384 -> 192). The width
    between is the geometric mean of width and D. Each matrix is divided by its largest singular
    value, so that no difference of two descriptors becomes longer. That value is estimated by one
    power iteration per training step (torch's `spectral_norm`), whose vectors are buffers: they are
    saved with the weights.
    """

    def __init__(self, width: int, dim: int):
        super().__init__()
        between = max(round((width * dim) ** 0.5), 1)
        self.first = spectral_norm(nn.Linear(width, between))
        self.second = spectral_norm(nn.Linear(between, dim))

    def forward(self, descriptors: Tensor) -> Tensor:
        """(n, width) -> (n, D)."""
        return self.second(self.first(descriptors))

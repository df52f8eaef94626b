"""Operations and memory of the networks, counted by running their own code on the meta device.

Tensors of torch's meta device have shapes and no values, so that nothing is computed and no weights
are loaded. One product of matrices (m, k) and (k, n) counts 2 m k n operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

META = torch.device("meta")
FEW, MORE = 2, 4  # items of the two runs whose difference is the cost per item


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one item: a picture, a title, the bag of a product, a pair."""

    forward: float = 0.0  # operations
    step: float = 0.0  # operations, forward and backward
    saved: float = 0.0  # bytes in float32 that a training step keeps for the backward pass

    def times(self, count: float) -> Cost:
        return Cost(self.forward * count, self.step * count, self.saved * count)

    def plus(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.step + other.step, self.saved + other.saved)


@dataclass(frozen=True, slots=True)
class EncoderCost:
    """An encoder, per item; `frozen` is what the stage precompute runs once.

    `kind` is that of `nn.encoder.Encoder`: what the training stages read.
    """

    kind: str
    width: int
    frozen: float  # operations of the frozen part, forward
    trained: Cost  # of `forward`, from what is stored
    stored: float  # bytes of what is stored per item and read by the training stages
    parameters: int
    trainable: int
    assumed: str = ""  # what was assumed, as the model's configuration was not found

    def held(self) -> EncoderCost:
        """The same encoder where its outputs are the inputs (`nn.encoded`)."""
        return replace(
            self, kind="descriptors", trained=Cost(), stored=4.0 * self.width, trainable=0
        )

    def recomputed(self) -> EncoderCost:
        """The same encoder in pieces that the backward pass computes again (`nn.recomputed`).

        Of all but one piece only the inputs and the descriptors are kept.
        """
        forward, step = self.trained.forward, self.trained.step
        return replace(self, trained=Cost(forward, step + forward, 4.0 * self.width))


def measured(run: Callable[[int], Tensor], parameters: bool = True) -> Cost:
    """The cost of an item of `run(n)`, which makes n items and returns something to sum.

    The difference of two runs is taken, so that what does not grow with n, as weights do not,
    counts for nothing. Without `parameters` nothing trains, and there is no backward pass.
    """
    few, more = (_counted(run, n, parameters) for n in (FEW, MORE))
    return Cost(*((b - a) / (MORE - FEW) for a, b in zip(few, more)))


def _counted(run: Callable[[int], Tensor], n: int, backward: bool) -> tuple[float, float, float]:
    saved = 0.0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with META, FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        with hooks:
            out = run(n)
        forward = float(counter.get_total_flops())
        if backward and out.requires_grad:
            out.float().sum().backward()
        step = float(counter.get_total_flops())
    return forward, step, saved


def counts_of(module: nn.Module) -> tuple[int, int]:
    """Parameters of a module, all and those that train."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)

"""Outputs of the frozen part of an encoder, which the stage precompute stores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mufin.nn.encoder import Kind

LEVELS = 127  # of int8 on each side of 0
SCALE_BYTES = 4  # of a token's factor, a float32 behind its int8 numbers


class HasFrozen(Protocol):
    """An encoder, or what runs its frozen part in its place."""

    kind: Kind

    @property
    def frozen(self) -> Callable[..., Tensor]:
        """What precompute stores of pixels, or of tokens and their lengths."""


@torch.inference_mode()
def frozen_inputs(
    encoder: HasFrozen, inputs: tuple[Tensor, ...], device: torch.device, precision: torch.dtype
) -> np.ndarray:
    """The output of the encoder's frozen part: float32 descriptors or float16 activations.

    `inputs` are the arguments of `encoder.frozen`: pixels, or tokens and their lengths.
    """
    with torch.autocast(device.type, precision, precision != torch.float32):
        out = encoder.frozen(*(t.to(device) for t in inputs))
    dtype = torch.float32 if encoder.kind == "descriptors" else torch.float16
    return out.float().to(dtype).cpu().numpy()  # converted on the device: less to transfer


def to_int8(activations: np.ndarray) -> np.ndarray:
    """Activations (n, T, C) as int8 (n, T, C + 4), half the bytes of float16.

    The largest magnitude of a token becomes 127; the factor back, a float32, is in the four last
    bytes of the token. An error is at most 1/254 of the token's largest magnitude.
    """
    values = activations.astype(np.float32)
    scale = np.abs(values).max(-1, keepdims=True) / LEVELS  # (n, T, 1)
    levels = np.rint(values / np.where(scale > 0, scale, 1)).astype(np.int8)
    return np.concatenate([levels, scale.astype(np.float32).view(np.int8)], -1)


def as_floats(activations: Tensor, dtype: torch.dtype) -> Tensor:
    """Stored activations, float16 or as `to_int8` makes them, as (n, T, C) of `dtype`."""
    if activations.dtype != torch.int8:
        return activations.to(dtype)
    levels, factor = activations.split([activations.shape[-1] - SCALE_BYTES, SCALE_BYTES], -1)
    # A copy, as `view` needs an address that float32 numbers may have
    scale = factor.clone(memory_format=torch.contiguous_format).view(torch.float32)  # (n, T, 1)
    return (levels.to(torch.float32) * scale).to(dtype)

"""The machine of a training run: device, precision, and where checkpoints go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how a network trains; the stage reads it from the environment."""

    device: torch.device
    precision: torch.dtype  # of autocast: float32 (no autocast) or bfloat16
    scratch: Path  # the folder of this run's checkpoints
    checkpoint_seconds: float  # time between two checkpoints

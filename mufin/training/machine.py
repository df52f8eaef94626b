"""Where and how a training run runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how to run; from the environment, given by the stage."""

    device: torch.device
    precision: torch.dtype
    scratch: Path  # checkpoints; one folder a run
    checkpoint_seconds: float

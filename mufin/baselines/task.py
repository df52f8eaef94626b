"""What a rival is given and what it gives back: one form for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

import numpy as np
import torch

from mufin.errors import MufinError
from mufin.ragged import Lists

WIDTH = 100  # labels predicted a datapoint

# {valid, test} -> labels (n, WIDTH) int64, -1 padded, and scores (n, WIDTH) float32, best first, without filter pairs
Predict = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Task:
    """The curated split as a rival may see it: never the truth of test. A rival is a function (Task, seed) -> Predict."""

    titles: dict[
        str, list[str]
    ]  # of the datapoints of train, valid, test and of `labels`; '' where there is none
    truth: dict[str, Lists]  # of train and valid: label ids, filter pairs left out
    excluded: dict[str, Lists]  # of train, valid, test: the filter pairs
    descriptors: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    # as `titles`, then text, image: (n, width) float32, what the frozen encoders give (a mean over pictures); 0 = none
    device: torch.device = torch.device("cpu")

    def __post_init__(self):
        """Raises MufinError where there is nothing to learn from."""
        if not self.num_labels or not len(self.truth["train"].values):
            raise MufinError(
                f"there are {self.num_labels} labels and {len(self.truth['train'].values)} train relations: "
                "nothing to learn from; run `dvc repro curate` on a catalog with relations"
            )

    @property
    def num_labels(self) -> int:
        return len(self.titles["labels"])

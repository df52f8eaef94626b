"""What a baseline is given and what it returns: one form for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from mufin.errors import MufinError
from mufin.ragged import Lists

if TYPE_CHECKING:
    from mufin.corpus.sample_attributes import Attributes

WIDTH = 100  # labels predicted per datapoint

# {valid, test} -> labels (n, WIDTH) int64, -1 padded, and scores (n, WIDTH) float32, best first,
# without filter pairs
Predict = Callable[[str], tuple[np.ndarray, np.ndarray]]

# {train, valid, test, labels} -> {text, image} -> (n, width) float32, zeros where a product has no
# title or no picture
Descriptors = dict[str, dict[str, np.ndarray]]


def no_attributes() -> dict[str, Attributes]:
    """Raises MufinError: only the built-in sample has attributes."""
    raise MufinError(
        "this row needs the attributes of the built-in sample, and the data are another catalog; "
        "leave it out of the file of variants, or set download.source to sample"
    )


@dataclass(frozen=True)
class Task:
    """The curated split as a baseline may see it: without the truth of test.

    A baseline is a function `baseline(task, seed) -> Predict`: it trains, and the function that it
    returns predicts.
    """

    titles: dict[str, list[str]]  # of train, valid, test and `labels`; '' where there is none
    truth: dict[str, Lists]  # of train and valid: label ids, filter pairs left out
    excluded: dict[str, Lists]  # of train, valid, test: the filter pairs
    encode: Callable[[], Descriptors] = dict  # runs the frozen encoders; called by `descriptors`
    device: torch.device = torch.device("cpu")
    # of train, valid, test and `labels`, in the built-in sample; raises MufinError elsewhere
    attributes: Callable[[], dict[str, Attributes]] = no_attributes

    def __post_init__(self):
        """Raises MufinError where there is nothing to learn from."""
        relations = len(self.truth["train"].values)
        if not self.num_labels or not relations:
            raise MufinError(
                f"there are {self.num_labels} labels and {relations} train relations: "
                "nothing to learn from; run `dvc repro curate` on a catalog with relations"
            )

    @cached_property
    def descriptors(self) -> Descriptors:
        """The outputs of the frozen encoders, the mean over a product's pictures.

        They are computed at the first use.
        """
        return self.encode()

    @property
    def num_labels(self) -> int:
        return len(self.titles["labels"])

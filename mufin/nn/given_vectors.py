"""E_V where the vectors of the images came with the data (`download.image_vectors`)."""

from __future__ import annotations

from dataclasses import dataclass

from mufin.errors import MufinError, shown
from mufin.nn.encoder import EncoderSpec
from mufin.nn.stored import StoredDescriptors

WIDEST = 2**20  # numbers per vector of a saved encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSpec(EncoderSpec):
    """The spec of `GivenVectors`."""

    given_width: int  # numbers per vector

    def __post_init__(self) -> None:
        if type(self.given_width) is not int or not 1 <= self.given_width <= WIDEST:
            raise MufinError(f"given_width is {shown(self.given_width)}; it must be at least 1")


class GivenVectors(StoredDescriptors):
    """A frozen E_V without weights: descriptors (n, width) are the vectors as they were given.

    It cannot encode an image, so it has no `frozen`.
    """

    spec: GivenSpec

    def __init__(self, spec: GivenSpec):
        super().__init__(spec.given_width)
        self.spec = spec


def given_encoder(width: int) -> GivenVectors:
    """E_V for vectors of `width` numbers."""
    return GivenVectors(GivenSpec(trainable=0, random=False, given_width=width))


def is_given(facts: dict) -> bool:
    """Whether `encoder.json` with this content is that of `GivenVectors`."""
    return "given_width" in facts


def load_given(facts: dict) -> GivenVectors:
    """The encoder of an `encoder.json`."""
    return GivenVectors(GivenSpec(**facts))

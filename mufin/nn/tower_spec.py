"""What is needed to build an encoder of `mufin.nn.vision_language` again."""

from __future__ import annotations

from dataclasses import dataclass

from mufin.nn.encoder import EncoderSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSpec(EncoderSpec):
    """What is needed, besides the weights, to build one of these encoders again."""

    family: str  # a name of a `vision_language.Family`
    config: dict  # of the transformers model
    untitled: list[int] | None = None  # VisualBERT: the tokens of an empty title
    mean: list[float] | None = None  # CLIP's image part: of each channel, in [0, 1]
    std: list[float] | None = None
    mean_std_from: str = ""  # where they come from

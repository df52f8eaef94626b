"""Mean and standard deviation by which pixels are normalised, and where they come from.

Weights are right for the values that they were trained with. Models of one architecture differ in
them: [0.485, 0.456, 0.406] for one, [0.5, 0.5, 0.5] for another.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mufin.errors import MufinError, shown

OF_TIMM = "config.json"  # of a model of timm's hub: also says the architecture
OF_OTHERS = ("preprocessor_config.json", "processor_config.json", "open_clip_config.json")
SECTIONS = ("pretrained_cfg", "image_processor", "preprocess_cfg")  # where they have the values
NAMES = (("mean", "std"), ("image_mean", "image_std"))
# of OpenAI's CLIP; here, because the module of transformers that has them takes seconds to import
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


@dataclass(frozen=True, slots=True)
class PixelScale:
    """x = (pixel / 255 - mean) / std for each of the three channels."""

    mean: list[float]  # in [0, 1]
    std: list[float]  # in (0, 1]
    origin: str  # where they come from, for people

    def __post_init__(self) -> None:
        for name, values, low in (("mean", self.mean, 0.0), ("std", self.std, 1e-6)):
            if not (isinstance(values, (list, tuple)) and len(values) == 3) or not all(
                isinstance(v, (int, float)) and math.isfinite(v) and low <= v <= 1 for v in values
            ):
                raise MufinError(
                    f"{name} of the pixels is {shown(values)} ({self.origin}); it must be three "
                    f"numbers in [{low:g}, 1]: set encoder.image.options.mean and std"
                )

    def said(self) -> str:
        """The values and their origin, for a line on stderr."""
        return (
            f"encoder.image normalises pixels with mean {self.mean} and std {self.std} "
            f"({self.origin}); encoder.image.options.mean and std set others"
        )

    def facts(self) -> dict:
        """The values and their origin, for the manifest and the metrics."""
        return {"mean": self.mean, "std": self.std, "mean_std_from": self.origin}

    def register(self, module: nn.Module) -> None:
        """Gives `module` the buffers `mean` and `std` for pixels in [0, 255], (1, 3, 1, 1)."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            value = torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) * 255
            module.register_buffer(name, value, persistent=False)


def scale_of(content: object, origin: str) -> PixelScale | None:
    """The values that a configuration has at its top or in one of `SECTIONS`; None without any.

    Raises MufinError if they are not three numbers each.
    """
    if not isinstance(content, dict):
        return None
    for section in (content, *(content.get(name) for name in SECTIONS)):
        if not isinstance(section, dict):
            continue
        if section.get("do_normalize") is False:
            return PixelScale([0.0] * 3, [1.0] * 3, origin)
        for mean, std in NAMES:
            if section.get(mean) is not None and section.get(std) is not None:
                return PixelScale(_list(section[mean]), _list(section[std]), origin)
    return None


def split_options(options: dict) -> tuple[dict, PixelScale | None]:
    """`encoder.image.options` without mean and std, and these; raises MufinError if one lacks."""
    rest = {name: value for name, value in options.items() if name not in ("mean", "std")}
    if len(options) == len(rest):
        return rest, None
    if len(options) != len(rest) + 2:
        raise MufinError("encoder.image.options has one of mean and std; give both, or neither")
    return rest, PixelScale(
        _list(options["mean"]), _list(options["std"]), "from encoder.image.options"
    )


def scale_beside(checkpoint: Path) -> PixelScale | None:
    """The values in the configuration files of the folder of a checkpoint; None without any."""
    for name in (OF_TIMM, *OF_OTHERS):
        content = _json(checkpoint.parent / name)
        if scale := scale_of(content, f"from {name} beside the checkpoint"):
            return scale
    return None


def check_architecture(checkpoint: Path, architecture: str) -> None:
    """Raises MufinError if config.json beside a checkpoint is that of another timm model."""
    content = _json(checkpoint.parent / OF_TIMM)
    other = content.get("architecture") if isinstance(content, dict) else None
    if isinstance(other, str) and architecture and other != architecture:
        raise MufinError(
            f"encoder.image.weights is {shown(str(checkpoint))}, whose config.json is that of "
            f"{shown(other)}, and encoder.image.name is {architecture}; set the name to that, or "
            "put the file in a folder of its own"
        )


def _list(values: Any) -> Any:
    """timm has tuples, JSON has lists; a single number is that of each channel."""
    if isinstance(values, (int, float)) and not isinstance(values, bool):
        return [values] * 3
    return list(values) if isinstance(values, tuple) else values


def _json(path: Path) -> object:
    """The content of a file, None without one; raises MufinError if it is not JSON."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MufinError(
            f"{path} cannot be read ({shown(str(error))}); mend it, or move the checkpoint beside "
            "it to a folder of its own and set encoder.image.options.mean and std"
        ) from None

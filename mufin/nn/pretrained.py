"""Weights from a model hub or from a checkpoint file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

from mufin.corpus.model_hub import HubUnreachable, no_copy
from mufin.errors import MufinError, shown

WRAPPED = ("state_dict_ema", "model_ema", "state_dict", "model")  # by timm, the best one first


def reason(error: Exception) -> str:
    """The message of `error` in one line of at most 160 characters, whole sentences if possible.

    The class of `error` if the message is empty.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) <= 160:
        return text
    return text[:160].rpartition(". ")[0] or f"{text[:157]}..."


def unavailable(section: str, name: str, weights: str, error: Exception) -> str:
    """The sentence for a model that cannot be loaded."""
    if isinstance(error, HubUnreachable):
        return no_copy(f"{section}.name", name, error)
    return (
        f"{section}.name is {name!r} with weights {weights!r} and cannot be loaded "
        f"({reason(error)}); without a network name a local folder, or set the weights to random "
        "or to a checkpoint file"
    )


def load_into(model: nn.Module, path: str, setting: str) -> dict:
    """Loads a checkpoint file into `model`, with timm's interpolation of position embeddings.

    The file may hold more weights, such as those of a head. `setting` names the path in errors.
    Returns the settings of the training that wrote it, as far as it has them (`args` of timm).
    Raises MufinError if the file is missing, does not fit or lacks a weight.
    """
    if not Path(path).is_file():
        raise MufinError(
            f"{setting} is {shown(path)}; it must be pretrained, random or the path of a "
            "checkpoint file"
        )
    module = sys.modules[type(model).__module__]
    fitted = getattr(module, "checkpoint_filter_fn", lambda state, _: state)
    try:
        state, args = _read(path)
        missing = model.load_state_dict(fitted(state, model), strict=False).missing_keys
    except Exception as error:  # other formats and other models raise different classes
        raise MufinError(
            f"{setting} is {shown(path)}, which does not fit ({reason(error)[:100]}); give a "
            "checkpoint of the same model, or pretrained or random"
        ) from None
    if missing:
        raise MufinError(
            f"{setting} is {shown(path)}, which lacks {len(missing)} weights ({missing[0]}, ...); "
            "give a checkpoint of the same model, or pretrained or random"
        )
    return args


def _read(path: str) -> tuple[dict, dict]:
    """The weights by name, and `args` of a checkpoint of timm's training script."""
    from safetensors.torch import load_file
    from timm.models import clean_state_dict

    if path.endswith(".safetensors"):
        return load_file(path), {}
    # No class of the file is made but Namespace, which timm's checkpoints have: no code is run.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}, not weights by name")
    args = content.get("args")
    wrapped = (content[name] for name in WRAPPED if isinstance(content.get(name), dict))
    state = clean_state_dict(next(wrapped, content))
    return state, vars(args) if isinstance(args, argparse.Namespace) else {}

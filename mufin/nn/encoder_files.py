"""The folder of an encoder: its spec and its weights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mufin.errors import ArtifactError, MufinError
from mufin.nn.encoder import Encoder
from mufin.nn.pretrained import reason

# Of some models only a part is kept, such as the text part of CLIP, and only this part is saved
MORE, SPARE = 10, 2**24  # times the bytes saved, and bytes besides

AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Writes the weights and the spec of an encoder into `folder`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoder.json").write_text(json.dumps(asdict(encoder.spec), indent=2, default=str))
    weights = {n: t.contiguous().clone() for n, t in encoder.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")


@contextlib.contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Raises what fails in its block as ArtifactError: `folder` is not what `save_encoder` wrote.

    Foreign specs and weights make timm, transformers and torch raise a dozen different classes.
    """
    try:
        with _bounded(SPARE + MORE * (folder / "weights.safetensors").stat().st_size):
            yield
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"the encoder in {folder} cannot be loaded ({reason(error)[:120]}); run "
            "`dvc repro precompute`"
        ) from None


@contextlib.contextmanager
def _bounded(most: int) -> Iterator[None]:
    """Raises MufinError if weights of over `most` bytes are made in its block.

    A spec could ask for any number of layers, and for more memory than there is. The hook is called
    after the memory of a weight is reserved, before it is filled.
    """
    made = 0

    def count(module: nn.Module, name: str, weight: nn.Parameter | None) -> None:
        nonlocal made
        made += 0 if weight is None else weight.numel() * weight.element_size()
        if made > most:
            raise MufinError(f"it asks for over {most} bytes of weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def filled(encoder: AnyEncoder, folder: Path, fresh: bool) -> AnyEncoder:
    """`encoder` with the weights saved in `folder`.

    With `fresh` only the frozen part is loaded, because the stored activations depend on it.
    """
    from safetensors.torch import load_file

    state = load_file(folder / "weights.safetensors")
    trained = {n for n, p in encoder.named_parameters() if p.requires_grad} if fresh else set()
    saved = {n: w for n, w in state.items() if n not in trained}
    drawn = {n: w for n, w in encoder.state_dict().items() if n in trained}
    encoder.load_state_dict(saved | drawn)
    return encoder

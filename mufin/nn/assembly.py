"""How a MUFIN is put together: a new one before Module I, one from disk, and what Module III adds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mufin.artifacts.files import ArtifactError
from mufin.artifacts.models import read_members, write_members
from mufin.artifacts.precomputed import Precomputed
from mufin.nn.attention import SelfAttention
from mufin.nn.bags import Pooling
from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.concat import ConCat
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.feed_forward import FeedForward, NoSelfAttention
from mufin.nn.mufin import LexicalBag, Mufin, Projection
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.nn.vision_language import Encoder, load_encoder
from mufin.nn.weights import weights_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """All that is needed, beside encoders and weights, to build a network: `model.json`."""

    modalities: list[str]  # of text, image, lexical
    dim: int  # D
    projection: str  # maxpool | linear
    standardise: bool  # frozen descriptors by train statistics
    text_dropout: float
    image_dropout: float
    modality_dropout: float
    gates: bool
    image_gate: float
    heads: int
    dropout: float  # of A_S and A_C
    a_s: str  # attention | feedforward | none
    a_c: str = "attention"  # attention | concat | none
    num_labels: int = 0  # of the classifiers; 0: there are none yet
    outer_norm: bool = True  # of the classifiers


@dataclass(frozen=True, slots=True)
class Member:
    """One network of the ensemble, and how it is built."""

    architecture: Architecture
    network: Mufin


def new_member(architecture: Architecture, precomputed: Precomputed, seed: int) -> Member:
    """A network before Module I: encoders from `data/precomputed`, everything new drawn from `seed`."""
    torch.manual_seed(seed)
    return Member(architecture, assemble(architecture, precomputed, seed))


def assemble(architecture: Architecture, precomputed: Precomputed, seed: int | None) -> Mufin:
    """The network with fresh weights beside its encoders'; with `seed`, random encoders that train are drawn anew."""
    a = architecture
    encoders: dict[str, nn.Module] = {}
    projections: dict[str, nn.Module] = {}
    for name in a.modalities:
        if name == "lexical":
            encoders[name], projections[name] = (
                LexicalBag(len(precomputed.lexical_terms()), a.dim),
                nn.Identity(),
            )
            continue
        encoder = load_encoder(precomputed.encoder(name), seed)
        encoders[name], projections[name] = encoder, _projection(a, precomputed, name, encoder)
    if getattr(encoders.get("text"), "reads_pictures", False):
        # VisualBERT reads E_V's frozen features: standardised, but as wide as they are
        image = encoders.pop("image")
        assert isinstance(image.width, int)
        mean, std = _statistics(a, precomputed, "image", image)
        projections["image"] = Projection(
            image.width, image.width, "maxpool", a.image_dropout, mean, std
        )
    self_attention = _self_attention(a)  # first: it draws its weights before A_C
    network = Mufin(
        encoders,
        projections,
        a.dim,
        self_attention,
        _cross_attention(a),
        Pooling(a.gates, a.image_gate),
        a.modality_dropout,
    )
    if a.num_labels:
        network.classifiers = LabelClassifiers(a.num_labels, a.dim, outer_norm=a.outer_norm)
    return network


def _projection(
    a: Architecture, precomputed: Precomputed, name: str, encoder: Encoder
) -> Projection:
    dropout = a.text_dropout if name == "text" else a.image_dropout
    return Projection(
        encoder.width, a.dim, a.projection, dropout, *_statistics(a, precomputed, name, encoder)
    )


def _statistics(
    a: Architecture, precomputed: Precomputed, name: str, encoder: nn.Module
) -> tuple[Tensor | None, Tensor | None]:
    """Of fully frozen encoders alone: the statistics of what trains would go stale."""
    if not a.standardise or encoder.kind != "descriptors":
        return None, None
    mean, std = precomputed.statistics(name)
    return torch.from_numpy(mean), torch.from_numpy(std)


def _self_attention(a: Architecture) -> SelfAttention | FeedForward | NoSelfAttention:
    """A_S, or what replaces it in a variant."""
    if a.a_s == "none":
        return NoSelfAttention()
    return (
        FeedForward(a.dim, a.dropout)
        if a.a_s == "feedforward"
        else SelfAttention(a.dim, a.heads, a.dropout)
    )


def _cross_attention(a: Architecture) -> CrossAttention | ConCat | NoCrossAttention:
    """A_C, or what replaces it in a variant."""
    if a.a_c == "none":
        return NoCrossAttention()
    return (
        ConCat(a.dim, a.dropout) if a.a_c == "concat" else CrossAttention(a.dim, a.heads, a.dropout)
    )


def transferred(
    member: Member, num_labels: int, a_c: str, alpha: float, outer_norm: bool
) -> Member:
    """The member with classifiers of `num_labels` labels and A_C, or what replaces it, at their start (Module III)."""
    architecture = replace(
        member.architecture, num_labels=num_labels, a_c=a_c, outer_norm=outer_norm
    )
    network = member.network
    network.classifiers = LabelClassifiers(num_labels, network.dim, alpha, outer_norm)
    network.cross_attention = _cross_attention(architecture)
    return Member(architecture, network)


def save_members(members: list[Member], folder: Path) -> None:
    """Publish all members or none."""
    write_members(((asdict(m.architecture), weights_of(m.network)) for m in members), folder)


def load_members(folder: Path, precomputed: Precomputed) -> list[Member]:
    """The members of `folder`, in eval mode, on the CPU; raises ArtifactError where one does not fit its encoders."""
    return [_loaded(facts, weights, precomputed, folder) for facts, weights in read_members(folder)]


def _loaded(
    facts: dict, weights: dict[str, Tensor], precomputed: Precomputed, folder: Path
) -> Member:
    try:
        architecture = Architecture(**facts)
        network = assemble(architecture, precomputed, None)
        network.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise ArtifactError(
            f"a member of {folder} does not fit the encoders in {precomputed.folder}, or was written by another version "
            f"({str(error).splitlines()[0]}); run `dvc repro`"
        ) from None
    network.eval()
    return Member(architecture, network)

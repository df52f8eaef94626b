"""How a MUFIN is built: a new one before Module I, the additions of Module III, one from disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from mufin.artifacts.contents import check_made_from, contents_of
from mufin.artifacts.models import read_members, write_members
from mufin.artifacts.precomputed import Precomputed
from mufin.errors import ArtifactError, shown
from mufin.nn.attention import SelfAttention
from mufin.nn.bags import Pooling
from mufin.nn.bert import bert_for_predictions
from mufin.nn.classifiers import DirectedClassifiers, LabelClassifiers
from mufin.nn.concat import ConCat
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.early_fusion import EarlyFusion, TokenReader, check_reads_pictures
from mufin.nn.encoder import Encoder
from mufin.nn.feed_forward import FeedForward
from mufin.nn.mufin import LexicalBag, Mufin, Projection
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.nn.no_self_attention import NoSelfAttention
from mufin.nn.prototypes import PrototypeClassifiers
from mufin.nn.stored import StoredDescriptors, stored_descriptors
from mufin.nn.vision_language import load_encoder
from mufin.nn.weights import weights_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What is needed, besides encoders and weights, to build a network; saved as `model.json`."""

    modalities: list[str]  # of text, image, lexical
    dim: int  # D
    projection: str  # maxpool, linear or two_layers
    standardise: bool  # whether frozen descriptors are scaled by train statistics
    text_dropout: float  # on the descriptors of titles
    image_dropout: float
    lexical_dropout: float = 0.0  # on the descriptors of title words
    descriptor_norm: bool = False  # whether each modality has a LayerNorm before A_S
    modality_dropout: float  # probability that a bag loses a modality in a training step
    gates: bool  # whether the pooling has a weight per modality
    image_gate: float  # initial log weight of images
    heads: int  # of A_S and A_C
    dropout: float  # of A_S and A_C
    a_s: str  # attention, feedforward or none
    a_c: str = "attention"  # attention, concat or none
    num_labels: int = 0  # of the classifiers; 0 before Module III
    outer_norm: bool = True  # of the classifiers
    fusion: str = "late"  # late, early or both
    fused_images: int = 3  # pictures that E_T reads, if not late
    pool: str = "sum"  # sum or means
    classifier: str = "mufin"  # mufin, prime or directed


@dataclass(frozen=True, slots=True)
class Member:
    """One network of the ensemble, and how it is built."""

    architecture: Architecture
    network: Mufin


def new_member(architecture: Architecture, precomputed: Precomputed, seed: int) -> Member:
    """A network before Module I: encoders from `data/precomputed`, all else drawn from `seed`."""
    torch.manual_seed(seed)
    network = assemble(architecture, precomputed, seed)
    if network.fusion is not None:
        titles = precomputed.text_inputs().shape[1]  # tokens of the longest title
        encoder = cast(Encoder, network.encoders["text"])
        check_reads_pictures(encoder, titles + architecture.fused_images)
    return Member(architecture, network)


def assemble(
    architecture: Architecture, precomputed: Precomputed, seed: int | None, whole: bool = True
) -> Mufin:
    """A network with the stored encoders and with initial values of all other weights.

    With `seed`, encoder weights that were random and train are drawn again from it. Without
    `whole`, what needs timm or transformers is replaced by what needs neither, if possible.
    """
    a = architecture
    encoders: dict[str, nn.Module] = {}
    projections: dict[str, nn.Module] = {}
    for name in a.modalities:
        if name == "lexical":
            encoders[name] = LexicalBag(len(precomputed.lexical_terms()), a.dim)
            projections[name] = _of_terms(a)
        else:
            light = None if whole else _light(precomputed, name)
            encoder = light or load_encoder(precomputed.stored_encoder(name), seed)
            encoders[name] = encoder
            projections[name] = _projection(a, precomputed, name, encoder)
    text, fusion = encoders.get("text"), None
    if isinstance(text, Encoder) and text.reads_pictures:
        # VisualBERT reads the stored features of E_V itself: standardised, at their full width.
        image = encoders.pop("image")
        assert isinstance(image, Encoder)
        projections["image"] = _full_width(a, precomputed, image)
    elif a.fusion != "late":
        fusion = _fusion(a, precomputed, encoders)
        if a.fusion == "early":
            del encoders["image"], projections["image"]
    # Random draws: A_S takes its weights before A_C.
    self_attention, cross_attention = _self_attention(a), _cross_attention(a)
    pooling = Pooling(a.gates, a.image_gate, a.pool == "means")
    network = Mufin(
        encoders,
        projections,
        a.dim,
        self_attention,
        cross_attention,
        pooling,
        a.modality_dropout,
        fusion,
    )
    if a.num_labels:
        network.classifiers = _classifiers(a)
    return network


def _light(precomputed: Precomputed, name: str) -> Encoder | None:
    """A replacement of an encoder in predictions that needs neither timm nor transformers."""
    if stored := stored_descriptors(precomputed, name):
        return stored
    return bert_for_predictions(precomputed.stored_encoder(name))


def _projection(
    a: Architecture, precomputed: Precomputed, name: str, encoder: Encoder
) -> nn.Module:
    dropout = a.text_dropout if name == "text" else a.image_dropout
    mean, std = _statistics(a, precomputed, name, encoder)
    projection = Projection(encoder.width, a.dim, a.projection, dropout, mean, std)
    return nn.Sequential(projection, nn.LayerNorm(a.dim)) if a.descriptor_norm else projection


def _of_terms(a: Architecture) -> nn.Module:
    """What the mean vectors of title words, which have D numbers already, go through."""
    steps: list[nn.Module] = [nn.LayerNorm(a.dim)] if a.descriptor_norm else []
    if a.lexical_dropout:
        steps.append(nn.Dropout(a.lexical_dropout))
    return nn.Sequential(*steps) if steps else nn.Identity()


def _full_width(a: Architecture, precomputed: Precomputed, encoder: Encoder) -> Projection:
    """A projection of image features that keeps their width."""
    mean, std = _statistics(a, precomputed, "image", encoder)
    return Projection(encoder.width, encoder.width, "maxpool", a.image_dropout, mean, std)


def _fusion(
    a: Architecture, precomputed: Precomputed, encoders: dict[str, nn.Module]
) -> EarlyFusion:
    """What makes pictures tokens of E_T."""
    image, width = cast(Encoder, encoders["image"]), cast(TokenReader, encoders["text"]).token_width
    mean, std = _statistics(a, precomputed, "image", image)
    projection = Projection(image.width, width, "linear", a.image_dropout, mean, std)
    return EarlyFusion(projection, width, a.fused_images, a.fusion == "both")


def _statistics(
    a: Architecture, precomputed: Precomputed, name: str, encoder: Encoder
) -> tuple[Tensor | None, Tensor | None]:
    """Mean and standard deviation of the descriptors, if they are wanted and the encoder is frozen.

    Those of an encoder that trains would soon be wrong.
    """
    if not a.standardise or encoder.kind != "descriptors":
        return None, None
    mean, std = precomputed.statistics(name)
    return torch.from_numpy(mean), torch.from_numpy(std)


def _self_attention(a: Architecture) -> SelfAttention | FeedForward | NoSelfAttention:
    """A_S, or its replacement in a variant."""
    if a.a_s == "none":
        return NoSelfAttention()
    if a.a_s == "feedforward":
        return FeedForward(a.dim, a.dropout)
    return SelfAttention(a.dim, a.heads, a.dropout)


def _cross_attention(a: Architecture) -> CrossAttention | ConCat | NoCrossAttention:
    """A_C, or its replacement in a variant."""
    if a.a_c == "none":
        return NoCrossAttention()
    if a.a_c == "concat":
        return ConCat(a.dim, a.dropout)
    return CrossAttention(a.dim, a.heads, a.dropout)


def _classifiers(
    a: Architecture, alpha: float = 0.5
) -> LabelClassifiers | PrototypeClassifiers | DirectedClassifiers:
    if a.classifier == "directed":
        return DirectedClassifiers(a.num_labels, a.dim, a.outer_norm)
    if a.classifier == "prime":
        return PrototypeClassifiers(a.num_labels, a.dim, a.outer_norm)
    return LabelClassifiers(a.num_labels, a.dim, alpha, a.outer_norm)


def transferred(
    member: Member,
    num_labels: int,
    a_c: str,
    alpha: float,
    outer_norm: bool,
    classifier: str = "mufin",
) -> Member:
    """The member with new classifiers and a new A_C (MUFIN Sec. 3.1, Module III).

    `a_c` says what the A_C is (attention, concat or none), `classifier` what the classifiers are
    (mufin, prime or directed), `alpha` where the mixing weights of mufin start. The network of
    `member` is changed, not copied.
    """
    architecture = replace(
        member.architecture,
        num_labels=num_labels,
        a_c=a_c,
        outer_norm=outer_norm,
        classifier=classifier,
    )
    network = member.network
    network.classifiers = _classifiers(architecture, alpha)
    network.cross_attention = _cross_attention(architecture)
    return Member(architecture, network)


def save_members(members: list[Member], folder: Path, precomputed: Precomputed) -> None:
    """Publishes all members, or none of them; `precomputed` is what they were trained on."""
    made_from = {"data/precomputed": contents_of(precomputed.folder).id}
    networks = ((asdict(m.architecture), weights_of(m.network)) for m in members)
    write_members(networks, folder, made_from)


def load_members(folder: Path, precomputed: Precomputed, whole: bool = True) -> list[Member]:
    """The members in `folder`, in eval mode, on the CPU.

    Without `whole` they predict the same, are loaded seconds sooner and cannot be saved. Raises
    ArtifactError if one is missing, broken or was trained on another `precomputed`.
    """
    check_made_from(folder, "data/precomputed", precomputed.folder)
    return [
        _loaded(facts, weights, precomputed, folder, whole)
        for facts, weights in read_members(folder)
    ]


def _loaded(
    facts: dict, weights: dict[str, Tensor], precomputed: Precomputed, folder: Path, whole: bool
) -> Member:
    try:
        architecture = Architecture(**facts)
        network = assemble(architecture, precomputed, None, whole)
        left_out = tuple(
            f"encoders.{name}."
            for name, encoder in network.encoders.items()
            if isinstance(encoder, StoredDescriptors)
        )
        kept = {n: w for n, w in weights.items() if not n.startswith(left_out)}
        # For predictions the weights stay in their mapped file: eta of many labels is large
        network.load_state_dict(kept, assign=not whole)
    except (RuntimeError, TypeError) as error:
        raise ArtifactError(
            f"a member of {folder} does not fit the encoders in {precomputed.folder}, or another "
            f"version wrote it ({shown(str(error).splitlines()[0])}); run `dvc repro`"
        ) from None
    network.eval()
    return Member(architecture, network)
